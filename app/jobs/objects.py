"""Documents in buckets as sources of the ingest, from where the operator's file opens a bucket to their tenant.

The server's own credentials reach more than one tenant may see: each address is checked whenever it is used.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from app.buckets import Bucket, bucket_errors
from app.services.ingest.detect import SUFFIXES
from app.services.ingest.ingest import Source
from graphs.errors import Forbidden, Invalid, Missing, TooLarge

MAX_OBJECTS: Final = 10_000  # of one prefix: each is an item of the job that takes it in
_ADDRESS: Final = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>.+)", re.DOTALL)


def is_object(url: str) -> bool:
    return url.lower().startswith("s3://")


class Objects:
    """`opened` gives the prefixes that a tenant may read, each with a slash at its end."""

    def __init__(self, opened: Callable[[str], Sequence[str]], endpoint_url: str | None, max_bytes: int) -> None:
        self._opened, self._endpoint_url, self._max_bytes = opened, endpoint_url, max_bytes

    async def listed(self, tenant_id: str, prefix: str) -> list[str]:
        """The addresses of all objects under the prefix, a folder's name as it were, in order.

        Raises Invalid, Forbidden, Missing where there is none, TooLarge for more than MAX_OBJECTS, BucketFailed.
        """
        bucket, key = self._allowed(tenant_id, prefix.removesuffix("/") + "/")
        found = list[str]()
        with bucket_errors(prefix):
            async for some in bucket.opened().list_async(key):
                found += [f"s3://{bucket.name}/{each['path']}" for each in some]
                if len(found) > MAX_OBJECTS:
                    raise TooLarge(f"{prefix} holds more than {MAX_OBJECTS} objects; name a part of it", field="prefix")
        if not found:
            raise Missing(f"there is nothing under {prefix}", field="prefix")
        return sorted(found)

    async def source(
        self,
        tenant_id: str,
        url: str,
        *,
        document_id: str = "",
        title: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Source:
        """Without a `document_id` it is the address. Raises Invalid, Forbidden, Missing, TooLarge, BucketFailed."""
        bucket, key = self._allowed(tenant_id, url)
        with bucket_errors(url):
            found = await bucket.opened().get_async(key)
            if found.meta["size"] > self._max_bytes:
                raise TooLarge(f"the object has more than {self._max_bytes} bytes")
            content = bytes(await found.bytes_async())
        name = PurePosixPath(key).name
        return Source(
            id=document_id or url,
            content=content,
            filename=name if PurePosixPath(name).suffix.lower() in SUFFIXES else "",
            title=title,
            metadata=metadata or {},
        )

    def _allowed(self, tenant_id: str, url: str) -> tuple[Bucket, str]:
        """Bucket and key. What is not opened is told alike, whether it is there or not."""
        address = _ADDRESS.fullmatch(url)
        # A client would resolve dots and doubled slashes, and come out elsewhere than was checked.
        if address is None or any(part in {"", ".", ".."} for part in address["key"].removesuffix("/").split("/")):
            raise Invalid("the address of an object is s3://bucket/key, its parts neither empty nor dots")
        if not any(url.startswith(prefix) for prefix in self._opened(tenant_id)):
            raise Forbidden(f"{url} is not among the sources of this tenant")
        return Bucket(address["bucket"], "", self._endpoint_url), address["key"]
