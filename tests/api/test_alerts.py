"""Alerts over HTTP: the owner reads and acknowledges them."""

import httpx
import pytest

from tests.api.served import Served


@pytest.fixture
def alert(server: Served, owner: httpx.Client) -> str:
    """The id of an unread alert."""
    alerts = server.bench.watch.alerts

    async def notice() -> None:
        alerts.note_breaker("a-model-of-this-test", "closed")
        alerts.note_breaker("a-model-of-this-test", "open")
        await alerts.tell()

    server.call(notice())
    items = owner.get("/api/ai/alerts").json()["items"]
    return str(next(item["alertId"] for item in items if item["subject"] == "a-model-of-this-test"))


def test_an_alert_is_listed_until_it_is_acknowledged(owner: httpx.Client, alert: str) -> None:
    unread = owner.get("/api/ai/alerts", params={"unread": True}).json()["items"]
    (mine,) = [item for item in unread if item["alertId"] == alert]
    assert (mine["kind"], mine["delivery"], mine["acknowledgedAt"]) == ("breaker", "none", None)
    read = owner.post(f"/api/ai/alerts/{alert}/acknowledge")
    assert (read.status_code, read.json()["acknowledgedBy"]) == (200, "default/owner")
    assert owner.post(f"/api/ai/alerts/{alert}/acknowledge").json() == read.json()
    unread = owner.get("/api/ai/alerts", params={"unread": True}).json()["items"]
    assert alert not in [item["alertId"] for item in unread]


@pytest.mark.parametrize("unknown", ["0" * 32, "x", "%00", "..", "a b"])
def test_an_alert_that_was_never_told_is_missing(owner: httpx.Client, unknown: str) -> None:
    assert owner.post(f"/api/ai/alerts/{unknown}/acknowledge").status_code == 404


def test_only_the_owner_may_read_them(ann: httpx.Client, ada: httpx.Client) -> None:
    for client in (ann, ada):
        assert client.get("/api/ai/alerts").status_code == 403
        assert client.post("/api/ai/alerts/" + "0" * 32 + "/acknowledge").status_code == 403


def test_a_forged_cursor_is_refused(owner: httpx.Client) -> None:
    for cursor in ("x", "1-2", "9" * 30):
        assert owner.get("/api/ai/alerts", params={"cursor": cursor}).status_code == 422
