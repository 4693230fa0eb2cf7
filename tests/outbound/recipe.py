"""How a receiver verifies our webhooks, as the documents tell it, with nothing of ours."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

NEW = "whsec_" + base64.b64encode(b"a new secret of 24 bytes").decode()
OLD = "whsec_" + base64.b64encode(b"an old secret of 24 byte").decode()


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one who knows the secret sent this body; how old it may be is the receiver's choice."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    own = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(own, each) for each in headers["webhook-signature"].split())
