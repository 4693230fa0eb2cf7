"""Telling a URL what has happened: a caller's own, that a job has ended, or the operator's, that people are asked for.

One signed try an attempt, with the worker's pauses between them.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final, Self

from app.config.schema import OutboundConfig
from app.outbound.client import Outbound
from app.outbound.errors import EndpointGone, OutboundRefused, WebhookUndelivered
from app.outbound.lookup import REFUSAL
from app.outbound.policy import Reach
from app.outbound.signature import Secrets
from app.outbound.url import read
from app.outbound.webhooks import LIMITS, Endpoint, Event, tell
from app.services.jobs.callbacks import WEBHOOK
from app.services.jobs.ports import JobWork
from graphs.errors import Invalid

FIELD: Final = "callbackUrl"
PAUSES_S: Final = (5.0, 30.0, 120.0, 300.0)  # the last again and again: 22 minutes for a receiver to come back


class WebhookJob:
    """Payload: the event's `type`, `timestamp` and `data`; `url`, and `jobId` of the job that ended, or `urlEnv`, the
    variable that holds the URL, and `subject`, the id of what it is about."""

    name = WEBHOOK
    scope = None

    def __init__(self, reach: Reach, secrets: Secrets) -> None:
        """Without secrets nothing is delivered."""
        self._reach, self._secrets = reach, secrets
        self._outbound = Outbound(reach, LIMITS)

    @classmethod
    def of(cls, config: OutboundConfig) -> Self:
        """Raises Invalid for what the environment holds and is no secret."""
        variable = config.webhook_secret_env
        secrets = Secrets() if variable is None else Secrets.read(os.environ.get(variable, ""))
        return cls(Reach.of(config.webhooks), secrets)

    def vet(self, url: str) -> None:
        """Raises Invalid for a URL that could never be told of a job, OutboundRefused for an address that must not be.

        A name is not looked up yet: it has to be right when the job ends.
        """
        if not self._secrets.keys:
            told = "this server has no secret to sign callbacks with: outbound.webhook_secret_env names none"
            raise Invalid(told, field=FIELD)
        try:
            host = read(Endpoint.of(url, self._secrets).url).raw_host or ""
        except Invalid as error:
            error.field = FIELD
            raise
        try:
            address = ip_address(host)
        except ValueError:
            return
        if not self._reach.admits(host, address):
            raise OutboundRefused(REFUSAL, field=FIELD)

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        """Raises WebhookUndelivered, after which it is tried again, and EndpointGone."""
        told = work.state.payload
        outbound, url = self._way(told)
        event = Event.of(work.state.job_id, told["type"], told["data"], datetime.fromisoformat(told["timestamp"]))
        receipt = await tell(outbound, Endpoint.of(url, self._secrets), event)
        subject = told["jobId"] if "jobId" in told else told["subject"]
        if receipt.taken:
            return {"jobId" if "jobId" in told else "subject": subject, "status": receipt.status}
        said = f"{told['type']} of {subject} was not taken: {receipt.said}"
        if receipt.final:
            raise EndpointGone(said)
        pause_s = PAUSES_S[min(work.state.attempt, len(PAUSES_S) - 1)]
        raise WebhookUndelivered(said, retry_after_s=max(pause_s, receipt.retry_after_s or 0.0))

    def _way(self, told: Mapping[str, Any]) -> tuple[Outbound, str]:
        """A caller's URL may lead only where callers' may; the operator's own, wherever the operator says by now."""
        if (variable := told.get("urlEnv")) is None:
            self.vet(told["url"])  # the operator may have changed the file since
            return self._outbound, told["url"]
        url = os.environ.get(variable, "")
        return Outbound(Reach.to(Endpoint.of(url, self._secrets).url), LIMITS), url
