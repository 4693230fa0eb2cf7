"""Sends an alert to the operator's own URL: one JSON POST, signed where there is a secret, redirects not followed.

The URL is a secret of the operator (chat services put a token into it): it appears in no log and no error.
"""

import json
import logging
from dataclasses import replace
from typing import Final

from app.outbound.client import Outbound
from app.outbound.policy import Reach
from app.outbound.webhooks import LIMITS, Endpoint, Event, Receipt, tell
from app.services.alerts.shelf import Alert

log = logging.getLogger("pilothouse.alerts")

TIMEOUT_S: Final = 5.0


class Webhook:
    """A receiver of alerts. `text` in the body is what Slack, Mattermost and their like show."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S) -> None:
        self._endpoint = endpoint
        self._outbound = Outbound(Reach.to(endpoint.url), replace(LIMITS, total_s=timeout_s))

    async def send(self, alert: Alert) -> Receipt:
        """One try; the same alert may be sent twice, after a process died in between: `webhook-id` is the same then."""
        receipt = await tell(self._outbound, self._endpoint, Event(alert.alert_id, _body(alert)))
        if not receipt.taken:
            log.warning("the webhook did not take an alert", extra={"status": receipt.status, "said": receipt.said})
        return receipt


def _body(alert: Alert) -> bytes:
    return json.dumps(
        {
            "id": alert.alert_id,
            "kind": alert.kind,
            "subject": alert.subject,
            "detail": alert.detail,
            "share": alert.share,
            "createdAt": alert.created_at.isoformat(),
            "text": f"Pilothouse: {alert.subject}: {alert.detail}",
        }
    ).encode()
