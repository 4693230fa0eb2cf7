"""Webhooks: an event, told to an endpoint once a call. Who calls keeps the tries: alerts in their table, a durable job.

The id of an event is the same in every try: a receiver that heard it already knows it by `webhook-id`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from app.outbound.client import Outbound
from app.outbound.errors import UrlInvalid
from app.outbound.policy import Limits
from app.outbound.signature import Secrets, headers
from app.outbound.url import read, without_credentials
from graphs.errors import PilothouseError

LIMITS: Final = Limits(total_s=10.0, max_bytes=0)  # whatever a receiver says beside its status
_GONE: Final = 410  # Standard Webhooks: the endpoint wants no more events


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events are sent, and what signs them. Its URL may hold a token, so it is not shown."""

    url: str = field(repr=False)
    secrets: Secrets
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, url: str, secrets: Secrets) -> Self:
        """Credentials in the URL are sent as a header. Raises UrlInvalid, which repeats nothing of the URL."""
        bare, credentials = without_credentials(url)
        read(bare)
        return cls(bare, secrets, credentials)


@dataclass(frozen=True, slots=True)
class Event:
    """What is told. `body` is JSON; the same event keeps its id and body through all tries."""

    event_id: str
    body: bytes

    @classmethod
    def of(cls, event_id: str, kind: str, data: Mapping[str, Any], at: datetime) -> Self:
        """In the shape that Standard Webhooks proposes; `kind` is like `job.succeeded`."""
        written = {"type": kind, "timestamp": at.astimezone(UTC).isoformat(), "data": data}
        return cls(event_id, json.dumps(written, separators=(",", ":")).encode())


@dataclass(frozen=True, slots=True)
class Receipt:
    """How one try ended. `status` is 0 where no answer came; `final` says that no later try can be taken."""

    status: int
    said: str
    final: bool = False
    retry_after_s: float | None = None

    @property
    def taken(self) -> bool:
        return 200 <= self.status < 300


async def tell(outbound: Outbound, endpoint: Endpoint, event: Event, *, now: datetime | None = None) -> Receipt:
    """One try. Raises nothing that the receiver or the network could cause."""
    now = now or datetime.now(UTC)
    signed = headers(endpoint.secrets, event.event_id, int(now.timestamp()), event.body)
    named = {"Content-Type": "application/json", "Idempotency-Key": event.event_id}
    try:
        reply = await outbound.send(
            "POST", endpoint.url, headers={**named, **endpoint.credentials, **signed}, body=event.body
        )
    except PilothouseError as error:
        return Receipt(0, error.message, isinstance(error, UrlInvalid), error.retry_after_s)
    said = f"the receiver answered with status {reply.status}"
    return Receipt(reply.status, said, reply.status == _GONE, reply.retry_after_s(now))
