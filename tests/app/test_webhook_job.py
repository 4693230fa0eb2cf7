"""The ends of jobs, told to their callers: signed, once an end, tried again, and given up where all can see it."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.config.schema import OutboundConfig
from app.jobs.webhook import WebhookJob
from app.outbound.errors import OutboundRefused, UrlInvalid
from app.outbound.policy import Reach
from app.outbound.signature import Secrets
from app.services.jobs.callbacks import delivery_id
from app.services.jobs.ports import JobKind, JobRequest, JobState, JobWork
from app.services.jobs.worker import MAX_FAILURES
from graphs.errors import Invalid
from tests.outbound.recipe import NEW, is_genuine
from tests.outbound.servers import LOCAL
from tests.services.alerts.receiver import Receiver, receiver
from tests.services.jobs.yard import ANN, Errand, Yard, open_yard

WEBHOOKS = WebhookJob(LOCAL, Secrets.read(NEW))


async def does(work: JobWork) -> Mapping[str, Any]:
    if work.state.payload.get("fails"):
        raise Invalid("no such thing to do")
    return {"n": 1}


@pytest.fixture
async def yard(tmp_path: Path, store_url: str) -> AsyncIterator[Yard]:
    """Nothing happens in it by itself: who performs what, and when, is the test's choice."""
    kinds: list[JobKind] = [Errand(does), WEBHOOKS]
    async with open_yard(store_url, "toy", tmp_path, kinds, keeping=False, vet_callback=WEBHOOKS.vet) as open_:
        yield open_


@pytest.fixture
async def caller() -> AsyncIterator[Receiver]:
    async with receiver() as up:
        yield up


async def state(yard: Yard, job: JobState) -> JobState:
    return await yard.desk.state("acme", "ann", job.job_id)


async def test_each_end_is_told_signed_and_to_none_who_did_not_ask(yard: Yard, caller: Receiver) -> None:
    quiet = await yard.submit()
    done = await yard.submit(callback_url=caller.url)
    failed = await yard.submit(callback_url=caller.url, payload={"fails": True})
    stopped = await yard.submit(callback_url=caller.url)
    for job in (quiet, done, failed):
        await yard.worker.perform(job.job_id, 0)
    await yard.desk.cancel("acme", "ann", stopped.job_id)
    for job in (quiet, done, failed, stopped):
        await yard.worker.perform(delivery_id(job.job_id), 0)
    assert [(each["type"], each["data"]["jobId"]) for each in caller.bodies] == [
        ("job.succeeded", done.job_id),
        ("job.failed", failed.job_id),
        ("job.cancelled", stopped.job_id),
    ]
    assert caller.bodies[1]["data"]["error"]["code"] == "invalid_input"
    for headers, raw in zip(caller.headers, caller.raw, strict=True):
        assert is_genuine(NEW, {name.lower(): value for name, value in headers.items()}, raw)
    assert [(await state(yard, job)).callback for job in (quiet, done, failed, stopped)] == [None, *["delivered"] * 3]
    listed, _ = await yard.desk.page("acme", "ann", 10, None)
    assert {job.job_id: job.callback for job in listed}[done.job_id] == "delivered"
    assert len(listed) == 4


async def test_a_delivery_that_is_not_taken_is_tried_again_under_its_id(
    yard: Yard, caller: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await yard.submit(callback_url=caller.url)
    await yard.worker.perform(job.job_id, 0)
    monkeypatch.setattr(caller, "answer", lambda: web.Response(status=503, headers={"Retry-After": "77"}))
    await yard.worker.perform(delivery_id(job.job_id), 0)
    assert (await state(yard, job)).callback == "waiting"
    assert await yard.shelf.due() == [], "it waits as long as the receiver asked for"
    monkeypatch.setattr(caller, "answer", web.Response)
    await yard.worker.perform(delivery_id(job.job_id), 1)
    await yard.worker.perform(delivery_id(job.job_id), 1)
    assert (await state(yard, job)).callback == "delivered"
    assert {headers["webhook-id"] for headers in caller.headers} == {delivery_id(job.job_id)}
    assert (len(caller.raw), len(set(caller.raw))) == (2, 1)


@pytest.mark.parametrize(
    ("status", "tries", "code"), [(500, MAX_FAILURES, "webhook_undelivered"), (410, 1, "webhook_gone")]
)
async def test_a_delivery_that_nobody_takes_is_given_up_and_the_job_says_so(
    yard: Yard, caller: Receiver, status: int, tries: int, code: str
) -> None:
    caller.answer = lambda: web.Response(status=status)
    job = await yard.submit(callback_url=caller.url)
    await yard.worker.perform(job.job_id, 0)
    for attempt in range(MAX_FAILURES):
        await yard.worker.perform(delivery_id(job.job_id), attempt)
    assert len(caller.raw) == tries
    assert ((await state(yard, job)).callback, (await state(yard, job)).status) == ("failed", "succeeded")
    (delivery,), _ = await yard.desk.page("acme", "ann", 10, None, kind="webhook")
    assert delivery.error is not None
    assert (delivery.error.code, job.job_id in delivery.error.message) == (code, True)
    assert "canary" not in delivery.error.message


@pytest.mark.parametrize(
    ("url", "refusal"),
    [
        ("http://127.0.0.1/", OutboundRefused),
        ("http://[::ffff:10.0.0.1]/", OutboundRefused),
        ("http://169.254.169.254/", OutboundRefused),
        ("http://127.1/", UrlInvalid),
        ("file:///etc/passwd", UrlInvalid),
    ],
)
def test_s07_a_callback_into_the_inside_is_refused_before_there_is_a_job(url: str, refusal: type[Exception]) -> None:
    with pytest.raises(refusal) as refused:
        WebhookJob(Reach(), Secrets.read(NEW)).vet(url)
    assert vars(refused.value)["field"] == "callbackUrl"
    WEBHOOKS.vet("https://hooks.test/")


async def test_without_a_secret_a_callback_is_refused_and_nobody_submits_a_delivery(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid, match=r"outbound\.webhook_secret_env") as refused:
        WebhookJob.of(OutboundConfig()).vet("https://hooks.test/")
    assert refused.value.field == "callbackUrl"
    monkeypatch.setenv("HOOK", NEW)
    WebhookJob.of(OutboundConfig(webhook_secret_env="HOOK")).vet("https://hooks.test/")
    with pytest.raises(Invalid, match="kind must be one of errand"):
        await yard.desk.submit(JobRequest(ANN, "webhook", {"url": "https://hooks.test/"}))
