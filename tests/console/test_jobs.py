"""Jobs in words, and two versions of a search side by side."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from app.console.job_view import drawn_job, line, summary, title, trouble
from app.console.knowledge_search import Row, compared
from app.joblist import Opened, opened
from app.records import Principal
from app.services.jobs.ports import ItemState, JobFailure, JobProgress, JobState
from app.services.retrieval.explain import Candidate
from graphs.types import Passage

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
ANN = Principal("acme", "ann", frozenset({"documents"}), "k1")
LOST = JobFailure("invalid", "document_unreadable", "the document is empty")
JOB = JobState(
    "0" * 32, ANN, "ingest", {"collection": "logs"}, 100, "running", JobProgress(1, 3, "embed"),
    None, None, 0, None, NOW, NOW, None,
)  # fmt: skip


def item(**changes: Any) -> ItemState:
    return replace(
        ItemState(1, "a.md", "begun", None, {}, None, {"tookMs": {"parse": 1.0, "chunk": 2.0}}, None), **changes
    )


def test_a_document_in_hand_is_in_the_stage_after_those_that_are_behind_it() -> None:
    shown = line(JOB, item())
    assert (shown.word, [step.stage for step in shown.steps if step.took]) == ("embed", ["parse", "chunk"])
    assert line(JOB, item(input={"url": "https://e.org"}, result=None)).word == "fetch"
    assert line(replace(JOB, status="queued"), item()).word == "waiting"


def test_a_document_says_what_became_of_it_and_what_to_do_about_a_failure() -> None:
    done = line(JOB, item(status="succeeded", result={"chunks": 2, "happened": "unchanged", "tookMs": {}}))
    assert (done.word, done.detail, {step.took for step in done.steps}) == ("unchanged", "2 chunks", {"not needed"})
    lost = line(JOB, item(status="failed", error=LOST))
    assert (lost.word, lost.reason) == ("failed", "the document is empty")
    assert "upload it again" in lost.todo


def test_what_is_settled_is_shown_though_it_keeps_nothing_of_what_it_was_given() -> None:
    fetched = line(JOB, item(status="succeeded", result={"happened": "added", "tookMs": {"fetch": 9.0}}))
    assert (fetched.steps[0].stage, fetched.steps[0].took != "") == ("fetch", True)
    batch = replace(JOB, kind="runs", payload={})
    assert line(batch, item(name="", input={"message": "say Hi"})).name == "say Hi"
    assert line(batch, item(name="", number=3, status="succeeded", result={})).name == "Run 3"


@pytest.mark.parametrize(
    ("jobs", "words", "tone"),
    [
        ([], "", ""),
        ([JOB], "Ingest: 1 of 3 · embed", "running"),
        ([JOB, replace(JOB, progress=JobProgress(3, 5))], "Ingest: 4 of 8 · embed", "running"),
        ([replace(JOB, status="succeeded", result={"failed": [{}]})], "Last job: 1 failed", "failed"),
        ([replace(JOB, status="succeeded", result={"failed": []})], "Last job: succeeded", "completed"),
        ([replace(JOB, status="cancelled")], "Last job: cancelled", ""),
    ],
)
def test_the_jobs_of_a_collection_are_summed_up_in_a_few_words(jobs: list[JobState], words: str, tone: str) -> None:
    assert summary(jobs)[:2] == (words, tone)


def test_a_kind_that_nobody_named_is_shown_by_its_own_name_and_a_wait_says_what_for() -> None:
    other = replace(JOB, kind="re_embed", status="queued", error=JobFailure("upstream", "x", "the store is away"))
    assert title(other) == "Re embed of logs"
    told = trouble(other)
    assert told is not None
    assert (told.tone, told.detail) == ("warn", "the store is away")


def test_what_a_job_left_can_be_asked_for_again_only_once_it_has_ended_by_itself() -> None:
    found = Opened(
        JOB, {"succeeded": 1, "failed": 2}, [item(status="failed", error=LOST)], [item(status="failed", error=LOST)]
    )
    assert found.left == 0
    assert 'data-act="again"' not in drawn_job(found)
    ended = replace(found, job=replace(JOB, status="succeeded"))
    assert ended.left == 2
    assert drawn_job(ended).count('data-act="again"') == 2  # all of them, and the one that is shown
    assert replace(found, job=replace(JOB, status="cancelled")).left == 0


def test_an_attack_in_a_jobs_names_and_reasons_stays_text() -> None:
    attack = "<img src=x onerror=window.stolen=1>"
    bad = item(name=attack, status="failed", error=replace(LOST, message=attack))
    job = replace(
        JOB, kind=attack, payload={"collection": attack}, status="failed", error=replace(LOST, message=attack)
    )
    drawn = drawn_job(Opened(job, {"failed": 1}, [bad], [bad]))
    assert "<img" not in drawn


def row(chunk: str, place: int, start: int, *, shown: bool = True) -> Row:
    passage = Passage(chunk, "d", "Title", "text", start, start + 4, 0.5, "c")
    return Row(Candidate(passage, place, 0.5, place, None, None, 0.5, place, None, ""), place, 0.5, shown)


def test_a_passage_is_the_same_in_two_versions_where_it_is_the_same_piece_of_the_document() -> None:
    ours = [row("new-1", 1, 0), row("new-2", 2, 10)]
    theirs = [row("old-9", 1, 10), row("old-8", 2, 20), row("old-7", 3, 30, shown=False)]
    found = compared(ours, theirs)
    assert [(each.candidate.passage.chunk_id, each.place, each.other) for each in found] == [
        ("new-1", 1, None),
        ("new-2", 2, 1),
        ("old-8", None, 2),
    ]


async def test_a_job_of_somebody_else_says_nothing_of_documents_that_are_for_others() -> None:
    secret, renamed, plain = "sealed.md", "https://e.org/a", "open.md"
    items = [
        item(
            number=1,
            name=secret,
            allow_groups=("bridge",),
            status="failed",
            error=replace(LOST, message=secret),
        ),
        item(number=2, name=renamed, input={"url": renamed}, status="succeeded", result={"documentId": "orders"}),
        item(number=3, name=plain, status="succeeded", result={"documentId": plain, "happened": "added"}),
    ]
    bench: Any = SimpleNamespace(jobs=Shelf(items), library=Index(frozenset({"orders"})))
    rob = Principal("acme", "rob", frozenset({"runs"}), "k2")
    shown = await opened(bench, rob, JOB.job_id)
    assert [each.name for each in shown.items] == ["(for others)", "(for others)", plain]
    drawn = drawn_job(shown)
    assert all(word not in drawn for word in (secret, renamed, "orders"))
    for who in (ANN, replace(rob, scopes=frozenset({"owner"}))):
        bench.library.hidden_now = frozenset() if who.is_owner else frozenset({"orders"})
        assert [each.name for each in (await opened(bench, who, JOB.job_id)).items] == [secret, renamed, plain]


class Shelf:
    """One job of ann's with these items."""

    def __init__(self, items: list[ItemState]) -> None:
        self._items = items

    async def state(self, *_: object) -> JobState:
        return replace(JOB, status="succeeded")

    async def counts(self, _: str) -> dict[str, int]:
        return {"succeeded": 2, "failed": 1}

    async def items(self, job_id: str, limit: int, status: str | None = None) -> list[ItemState]:
        return [each for each in self._items if status in (None, each.status)]


class Index:
    """Keeps these documents from whoever asks."""

    def __init__(self, hidden: frozenset[str]) -> None:
        self.hidden_now = hidden

    async def hidden(self, *_: object) -> frozenset[str]:
        return self.hidden_now


@pytest.mark.parametrize(
    ("dropped", "title"),
    [
        (["waiting"], "The build that waited went with deleted text"),
        (["before", "waiting"], "The build that waited and the build to go back to went with deleted text"),
    ],
)
def test_an_optimize_job_says_which_builds_went_with_deleted_text(dropped: list[str], title: str) -> None:
    job = replace(JOB, kind="optimize", status="succeeded", result={"indexVersion": "logs@2", "dropped": dropped})
    advice = trouble(job)
    assert advice is not None
    assert advice.title == title
    assert trouble(replace(job, result={"indexVersion": "logs@2", "dropped": []})) is None
