"""Webhooks: an event, told to an endpoint until it has taken it or the tries are used up.

The id of an event is the same in every try: a receiver that heard it already knows it by `webhook-id`. Who keeps tries
of its own (alerts in their table, a durable job) calls `tell`; `deliver` waits between tries itself.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from app.outbound.client import Outbound
from app.outbound.errors import UrlInvalid, WebhookUndelivered
from app.outbound.policy import Limits
from app.outbound.signature import Secrets, headers
from app.outbound.url import read, without_credentials
from graphs.errors import PilothouseError

log = logging.getLogger("pilothouse.outbound")

LIMITS: Final = Limits(total_s=10.0, max_bytes=0)  # whatever a receiver says beside its status
PAUSES_S: Final = (5.0, 30.0, 120.0, 600.0)
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


async def deliver(
    outbound: Outbound,
    endpoint: Endpoint,
    event: Event,
    *,
    pauses_s: Sequence[float] = PAUSES_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> int:
    """Tell it, with these pauses between tries, longer where the receiver asks for more; gives the number of tries.

    Raises WebhookUndelivered after the last, and at once where no later try can be taken.
    """
    for tries, pause_s in enumerate((*pauses_s, None), start=1):
        receipt = await tell(outbound, endpoint, event)
        if receipt.taken:
            return tries
        log.warning("a webhook was not taken", extra={"event": event.event_id, "tries": tries, "said": receipt.said})
        if receipt.final or pause_s is None:
            raise WebhookUndelivered(f"the webhook was not taken in {tries} tries: {receipt.said}")
        await sleep(max(pause_s, receipt.retry_after_s or 0.0))
    raise AssertionError("the last try has no pause after it")
