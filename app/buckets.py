"""A place in an S3-compatible store: how LanceDB is told of it, and what we ask of it ourselves.

Credentials and region come from AWS_* or the machine's role, in every client alike, and never from a setting of ours.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from app.ids import new_id
from graphs.errors import Forbidden, Invalid, Missing, UpstreamError

if TYPE_CHECKING:
    from obstore.store import S3Store

CONNECT_S: Final = 5
REQUEST_S: Final = 30  # an object of the largest upload takes 10 s at 25 Mbit/s
TRIES: Final = 3


class BucketFailed(UpstreamError):
    """The store did not answer, or not as a store should. The same request may succeed later."""

    code = "bucket_failed"


class BucketUnfit(Invalid):
    """The store lacks what several writers need; its operator has to choose another one."""

    code = "bucket_unfit"


@dataclass(frozen=True, slots=True)
class Bucket:
    """`prefix` is without slashes at its ends, and may be empty. `endpoint_url` None is AWS."""

    name: str
    prefix: str = ""
    endpoint_url: str | None = None

    @classmethod
    def at(cls, url: str, endpoint_url: str | None = None) -> Self:
        """Of `s3://name/prefix`, whose form the settings have checked."""
        parts = urlsplit(url)
        return cls(parts.netloc, parts.path.strip("/"), endpoint_url)

    def __str__(self) -> str:
        return "/".join(filter(None, (f"s3://{self.name}", self.prefix)))

    @property
    def lance_options(self) -> Mapping[str, str]:
        """LanceDB's `storage_options`."""
        options = {
            "connect_timeout": f"{CONNECT_S}s",
            "timeout": f"{REQUEST_S}s",
            "client_retry_timeout": str(REQUEST_S),
            "download_retry_count": str(TRIES),
        }
        if self.endpoint_url is not None:
            options |= {"aws_endpoint": self.endpoint_url, "allow_http": str(self._is_plain).lower()}
        return options

    def opened(self) -> "S3Store":
        """A client of what lies under the prefix. It connects at its first use."""
        from obstore.store import S3Store  # Lazy: most installations have no bucket

        return S3Store(
            self.name,
            prefix=self.prefix or None,
            config={} if self.endpoint_url is None else {"endpoint": self.endpoint_url},
            client_options={
                "allow_http": self._is_plain,
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "timeout": timedelta(seconds=REQUEST_S),
            },
            retry_config={"max_retries": TRIES, "retry_timeout": timedelta(seconds=REQUEST_S)},
        )

    async def check(self) -> None:
        """Whether of two that write one name at once only one succeeds, on which commits and turns stand.

        Raises Missing for no such bucket, Forbidden, BucketFailed, BucketUnfit.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        store, name = self.opened(), f".probe/{new_id()}"
        with bucket_errors(str(self)):
            first = await store.put_async(name, b"1", mode="create")
            try:
                again = await asyncio.gather(
                    store.put_async(name, b"2", mode="create"),
                    store.put_async(name, b"3", mode={"e_tag": '"0"'}),
                    return_exceptions=True,
                )
            finally:
                await store.delete_async(name)
            for each in again:
                if isinstance(each, BaseException) and not isinstance(each, (AlreadyExistsError, PreconditionError)):
                    raise each
        if not first["e_tag"] or not all(isinstance(each, BaseException) for each in again):
            raise BucketUnfit(f"the store of {self} does not honour conditional writes (If-None-Match, If-Match)")

    @property
    def _is_plain(self) -> bool:
        return (self.endpoint_url or "").startswith("http://")


@contextmanager
def bucket_errors(what: str) -> Iterator[None]:
    """Errors of the client as ours. `what` is an address that the caller may know."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError as error:  # not their NotFoundError, which is never raised
        raise Missing(f"there is no {what}") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise Forbidden(f"the store does not let this server's credentials at {what}") from error
    except BaseError as error:
        raise BucketFailed(f"the store did not give or take {what}") from error
