"""Signatures of webhooks as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.body`, in base64.

Source: standardwebhooks.com, the specification, version v1 of the symmetric scheme. A receiver verifies like this:

    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    own = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    genuine = any(hmac.compare_digest(own, each) for each in headers["webhook-signature"].split())
    recent = abs(time.time() - int(headers["webhook-timestamp"])) < 300
"""

import binascii
import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Final, Self

from graphs.errors import Invalid

PREFIX: Final = "whsec_"
MIN_KEY_BYTES: Final = 24
MAX_KEY_BYTES: Final = 64
MAX_SECRETS: Final = 2


@dataclass(frozen=True, slots=True)
class Secrets:
    """The keys of one endpoint, newest first. Two while one replaces the other: a receiver may know either."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, text: str) -> Self:
        """From `whsec_...`, or two of them with a space between. Raises Invalid, which repeats nothing of it."""
        written = text.split()
        if not 1 <= len(written) <= MAX_SECRETS:
            raise Invalid(f"a webhook has 1 to {MAX_SECRETS} secrets, not {len(written)}", field="secret")
        return cls(tuple(map(_key, written)))

    def sign(self, event_id: str, at_s: int, body: bytes) -> str:
        """The value of `webhook-signature`: one signature a key, with spaces between."""
        signed = f"{event_id}.{at_s}.".encode() + body
        return " ".join(f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}" for key in self.keys)


def headers(secrets: Secrets, event_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The three headers; without keys there is no signature."""
    named = {"webhook-id": event_id, "webhook-timestamp": str(at_s)}
    return named | {"webhook-signature": secrets.sign(event_id, at_s, body)} if secrets.keys else named


def _key(secret: str) -> bytes:
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"a webhook's secret is {PREFIX} and base64", field="secret") from error
    if not secret.startswith(PREFIX) or not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        wanted = f"{PREFIX} and the base64 of {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes"
        raise Invalid(f"a webhook's secret is {wanted}", field="secret")
    return key
