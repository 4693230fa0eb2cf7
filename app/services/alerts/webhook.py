"""Sends an alert to the operator's own URL: one JSON POST, no proxy of the environment, no redirects.

The URL is a secret of the operator (chat services put a token into it): it appears in no log and no error.
"""

import logging
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar

from app.services.alerts.shelf import Alert
from graphs.errors import Invalid

log = logging.getLogger("pilothouse.alerts")

TIMEOUT_S: Final = 5.0


class Webhook:
    """A receiver of alerts. `text` in the body is what Slack, Mattermost and their like show."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Raises Invalid for a URL that is not http or https."""
        if not _is_http(url):
            raise Invalid("the webhook's URL must begin with http:// or https://", field="webhook_url_env")
        self._url, self._timeout_s = url, timeout_s
        self._session: ClientSession | None = None

    async def send(self, alert: Alert) -> bool:
        """Whether the receiver took it with a status of 2xx."""
        if self._session is None:
            self._session = ClientSession(
                trust_env=False, timeout=ClientTimeout(total=self._timeout_s), cookie_jar=DummyCookieJar()
            )
        # The same alert may come twice, after a process died in between: the id lets a receiver notice.
        headers = {"Idempotency-Key": alert.alert_id}
        try:
            async with self._session.post(
                self._url, json=_body(alert), headers=headers, allow_redirects=False
            ) as response:
                if 200 <= response.status < 300:
                    return True
                log.warning("the webhook refused an alert", extra={"status": response.status})
        except (ClientError, TimeoutError, OSError) as error:
            log.warning("the webhook does not answer", extra={"error": type(error).__name__})
        return False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _body(alert: Alert) -> dict[str, object]:
    return {
        "id": alert.alert_id,
        "kind": alert.kind,
        "subject": alert.subject,
        "detail": alert.detail,
        "share": alert.share,
        "createdAt": alert.created_at.isoformat(),
        "text": f"Pilothouse: {alert.subject}: {alert.detail}",
    }


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False
