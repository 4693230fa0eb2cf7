"""What waits for people is told to the operator's own URLs: signed, once, by ids alone."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from app.config.approvals import ApprovalConfig
from app.jobs.notices import Courier
from app.jobs.webhook import WebhookJob
from app.outbound.policy import Reach
from app.outbound.signature import Secrets
from app.records import Actor
from app.services.jobs.worker import MAX_FAILURES
from app.services.store.records import ApprovalRecord
from tests.outbound.recipe import NEW, is_genuine
from tests.services.alerts.receiver import Receiver, receiver
from tests.services.jobs.yard import Yard, open_yard

RULES = ApprovalConfig.model_validate(
    {"webhook_url_env": "HOOK_OF_ALL", "rules": [{"tools": ["create_ticket"], "webhook_url_env": "HOOK_OF_TICKETS"}]}
)


@pytest.fixture
async def yard(tmp_path: Path, store_url: str) -> AsyncIterator[Yard]:
    """Nothing happens in it by itself. Callers' URLs may lead nowhere inside; the operator's own may."""
    webhooks = WebhookJob(Reach(), Secrets.read(NEW))
    async with open_yard(store_url, "toy", tmp_path, [webhooks], keeping=False) as open_:
        yield open_


@pytest.fixture
async def hook(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    async with receiver() as up:
        monkeypatch.setenv("HOOK_OF_TICKETS", up.url)
        yield up


async def asked(yard: Yard, tool: str = "create_ticket") -> ApprovalRecord:
    store, run_id = yard.store, f"run-{tool}"
    now = store.database.clock()
    await store.runs.start(run_id, "acme", "ann", None, "agent", "canary-question", "api", "k", now)
    text = {"title": "canary-argument"}
    until = now + timedelta(hours=1)
    return await store.approvals.create(run_id, "i", "acme", "ann", tool, text, "write", until)


async def delivered(yard: Yard) -> int:
    """Do what is due; how much that was."""
    due = await yard.shelf.due()
    for ticket, _ in due:
        await yard.worker.perform(ticket.job_id, ticket.attempt)
    return len(due)


async def test_what_waits_is_decided_or_escalated_is_told_signed_and_by_its_ids(yard: Yard, hook: Receiver) -> None:
    courier = Courier(yard.store, RULES, yard.desk)
    waiting = await asked(yard)
    now = yard.store.database.clock()
    await yard.store.approvals.decide(waiting.approval_id, "acme", Actor("acme", "cat"), "deny", None, "no", now)
    await courier.pass_on()
    await courier.pass_on()
    assert await delivered(yard) == 2
    assert await yard.store.notices.waiting(10) == []
    assert [body["type"] for body in hook.bodies] == ["approval.waiting", "approval.denied"]
    ids = {"approvalId": waiting.approval_id, "requestId": waiting.run_id, "tenantId": "acme"}
    assert [body["data"] for body in hook.bodies] == [ids, ids]
    for headers, raw in zip(hook.headers, hook.raw, strict=True):
        assert is_genuine(NEW, {name.lower(): value for name, value in headers.items()}, raw)
        assert b"canary" not in raw
    assert len({headers["webhook-id"] for headers in hook.headers}) == 2


async def test_a_notice_that_is_not_taken_is_tried_again_and_given_up_without_a_word_of_its_url(
    yard: Yard, hook: Receiver
) -> None:
    hook.answer = lambda: web.Response(status=500)
    await asked(yard)
    await Courier(yard.store, RULES, yard.desk).pass_on()
    ((ticket, _),) = await yard.shelf.due()
    for attempt in range(MAX_FAILURES):
        await yard.worker.perform(ticket.job_id, attempt)
    assert len(hook.raw) == MAX_FAILURES
    (delivery,), _ = await yard.desk.page("acme", None, 10, None, kind="webhook")
    assert (delivery.status, delivery.error and delivery.error.code) == ("failed", "webhook_undelivered")
    assert "canary" not in f"{delivery.error} {delivery.payload}"
    assert (await yard.desk.page("acme", None, 10, None))[0] == []  # deliveries are nobody's jobs


async def test_two_couriers_with_the_same_notice_have_it_told_once(
    yard: Yard, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asked(yard)
    found = await yard.store.notices.waiting(10)

    async def same(_: int) -> object:
        return found  # as two processes read it at the same moment

    monkeypatch.setattr(yard.store.notices, "waiting", same)
    for _ in range(2):
        await Courier(yard.store, RULES, yard.desk).pass_on()
    assert (await delivered(yard), len(hook.raw)) == (1, 1)


async def test_what_no_rule_has_a_url_for_is_told_to_nobody_and_does_not_pile_up(yard: Yard, hook: Receiver) -> None:
    await asked(yard)
    await Courier(yard.store, ApprovalConfig(), yard.desk).pass_on()
    assert await yard.shelf.due() == []
    assert await yard.store.notices.waiting(10) == []
    await asked(yard, "send_mail")
    await Courier(yard.store, RULES, yard.desk).pass_on()
    assert await delivered(yard) == 1  # to the URL of the section, which this environment does not hold
    assert hook.raw == []
