"""Secrets that are told in every way, looked for afterwards in all that the installation has written."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.telemetry.logs import JsonLines, Redact
from tests.api.served import Served

CANARY = "canary-5105-1051"
SECRETS = {
    "name": CANARY,
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLW9mLWNhbmFyeQ",
    "key": "sk-canary0123456789canary",
}
TOLD = " and ".join(SECRETS.values())


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that loggers of this process say, as a server would write it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.addFilter(Redact())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def nessa(server: Served, owner: httpx.Client) -> Iterator[httpx.Client]:
    """Somebody whom no other test needs: in the end she is erased."""
    asked = {"tenantId": "acme", "userId": "nessa", "scopes": ["chat", "documents"], "name": ""}
    server.keys["nessa"] = owner.post("/api/ai/keys", json=asked).json()["key"]
    with server.client("nessa") as client:
        yield client


def left_in(home: Path) -> dict[str, list[str]]:
    """The files that hold one of the secrets in the clear, and which."""
    found = {}
    for path in home.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            if names := [name for name, secret in SECRETS.items() if secret.encode() in held]:
                found[path.name] = names
    return found


def tell(client: httpx.Client, approver: httpx.Client) -> str:
    """Chat, RAG, an agent that waits and is approved, a failure, feedback; the conversation's id."""
    said = client.post("/api/ai/chat", json={"message": f"say {TOLD}"}).json()
    for mode, message in (("rag", f"say {TOLD}"), ("chat", f"refuse {TOLD}"), ("chat", f"fail {TOLD}")):
        client.post("/api/ai/chat", json={"message": message, "mode": mode, "conversationId": said["conversationId"]})
    waiting = client.post("/api/ai/chat", json={"message": f"ticket {TOLD}", "mode": "agent"}).json()
    for item in approver.get("/api/ai/approvals").json()["items"]:
        if item["requestId"] == waiting["requestId"]:
            decision = {"decision": "approve", "arguments": {"title": TOLD, "body": TOLD}, "comment": TOLD}
            assert approver.post(f"/api/ai/approvals/{item['id']}", json=decision).status_code == 200
    opinion = {"requestId": said["requestId"], "rating": "down", "comment": TOLD}
    assert client.post("/api/ai/feedback", json=opinion).is_success
    return str(said["conversationId"])


def test_p01_secrets_lie_sealed_in_the_store_alone_and_p05_nowhere_once_their_owner_is_erased(
    server: Served, nessa: httpx.Client, ada: httpx.Client, owner: httpx.Client, log: io.StringIO
) -> None:
    home: Path = server.bench.settings.home
    conversation_id = tell(nessa, ada)
    broken = nessa.post("/api/ai/chat", json={"message": [TOLD], "mode": TOLD})
    assert broken.status_code in {400, 422}
    told_elsewhere = {
        "an error's body": broken.text,
        "metrics": owner.get("/metrics").text,
        "the log": log.getvalue(),
        "jobs": nessa.get("/api/ai/jobs").text,
        "the audit trail": ada.get("/api/ai/audit").text,
    }
    for place, text in told_elsewhere.items():
        assert not [name for name, secret in SECRETS.items() if secret in text], place
    assert left_in(home) == {}
    read = nessa.get(f"/api/ai/conversations/{conversation_id}")
    assert CANARY in read.text, "what was looked for is there, for whom it is"

    assert ada.post("/api/ai/erasures", json={"tenantId": "acme", "userId": "nessa"}).status_code == 403
    assert owner.post("/api/ai/erasures", json={"tenantId": "acme"}).status_code == 422
    receipt = owner.post("/api/ai/erasures", json={"tenantId": "acme", "userId": "nessa"}).json()
    assert receipt["removed"]["runs"] >= 4
    assert receipt["removed"]["feedback"] == 1
    assert any(line.startswith("backups:") for line in receipt["stays"])
    assert nessa.get(f"/api/ai/conversations/{conversation_id}").status_code == 401, "the key is gone with its owner"
    assert left_in(home) == {}
