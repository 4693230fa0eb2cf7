"""Jobs in words: what one is about, how far each of its items is, and what to do about one that failed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.console.advice import Advice
from app.console.figures import counted
from app.console.view import draw, duration
from app.joblist import Opened
from app.jobs.collections import OPTIMIZE, REBUILD
from app.jobs.items import INGEST, RUNS
from app.jobs.retention import RETENTION
from app.services.jobs.callbacks import WEBHOOK
from app.services.jobs.ports import ENDED, ItemState, JobFailure, JobState, JobStatus

STAGES: Final = ("fetch", "parse", "chunk", "embed", "index")
TONES: Final[Mapping[JobStatus, str]] = {
    "queued": "waiting",
    "running": "running",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "",
}
KINDS: Final[Mapping[str, str]] = {
    INGEST: "Ingest",
    RUNS: "Batch of runs",
    REBUILD: "Rebuild",
    OPTIMIZE: "Optimize",
    RETENTION: "Retention",
    WEBHOOK: "Webhook",
}
_TODO: Final[Mapping[str, str]] = {
    "invalid": "Mend the document and upload it again. Trying again helps only if its parser was changed.",
    "denied": "This server may not fetch it. Whoever runs it decides so under outbound in the settings.",
    "missing": "There is nothing at this address any more. Look at it, and upload the document by hand.",
    "exhausted": "A limit was reached. Try again once it renews, or ask for a higher one.",
    "upstream": "What it needs was away. Try again.",
    "conflict": "Something else changed it meanwhile. Try again.",
    "internal": "Try again. If it stays, give the job's id to whoever runs this server: the log has the cause.",
}


_BUILDS: Final[Mapping[str, str]] = {"waiting": "the build that waited", "before": "the build to go back to"}


@dataclass(frozen=True, slots=True)
class Step:
    """A stage of a document: how long it took in words, empty for one that is not behind it yet."""

    stage: str
    took: str


@dataclass(frozen=True, slots=True)
class Line:
    """An item of a job. `word` says how it stands and `tone` colours it; `steps` are there for documents alone."""

    number: int
    name: str
    word: str
    tone: str
    detail: str
    steps: Sequence[Step]
    run_id: str
    reason: str
    todo: str


def title(job: JobState) -> str:
    collection = job.payload.get("collection")
    name = KINDS.get(job.kind, job.kind.replace("_", " ").capitalize())
    return f"{name} into {collection}" if collection and job.kind == INGEST else _of(name, collection)


def noun(job: JobState) -> str:
    return {INGEST: "document", REBUILD: "document", RUNS: "run", OPTIMIZE: "collection"}.get(job.kind, "part")


def line(job: JobState, item: ItemState) -> Line:
    """As the item stands; of one in hand, the stage that it is in."""
    told = item.result or {}
    took_ms: Mapping[str, float] = told.get("tookMs") or {}
    steps = _steps(item, took_ms) if job.kind == INGEST else ()
    return Line(
        number=item.number,
        name=item.name or str(item.input.get("message", f"{noun(job).capitalize()} {item.number}")),
        word=_word(job, item, steps),
        tone={"succeeded": "completed", "failed": "failed", "begun": "running"}.get(item.status, ""),
        detail=_detail(told, took_ms),
        steps=steps,
        run_id=(item.ref or "") if job.kind == RUNS else "",
        reason="" if item.error is None else item.error.message,
        todo="" if item.error is None else _TODO.get(item.error.kind, _TODO["internal"]),
    )


def trouble(job: JobState) -> Advice | None:
    """Why a job failed, or waits to be attempted again; what one that went well took with it."""
    error = job.error
    if error is None:
        return _dropped((job.result or {}).get("dropped") or ())
    if job.status == "queued":
        return Advice("Waiting to be tried again", "It goes on by itself.", "warn", error.message, error.code)
    return Advice("The job failed", _todo(error), "bad", error.message, error.code)


def drawn_job(found: Opened, *, notice: Advice | None = None) -> Markup:
    job = found.job
    lines = [line(job, item) for item in found.items]
    return draw(
        "job",
        job=job,
        title=title(job),
        noun=noun(job),
        tone=TONES[job.status],
        open=found.is_open,
        left=found.left,
        failed=[line(job, item) for item in found.failed],
        failures=found.counts.get("failed", 0),
        lines=lines,
        hidden=max(job.progress.total - len(lines), 0),
        took_ms=_took_ms(job),
        notice=notice or trouble(job),
    )


def summary(jobs: Sequence[JobState]) -> tuple[str, str, float]:
    """A few words for the jobs of a collection, their tone, and how much of them is done, from 0 to 1."""
    if not jobs:
        return "", "", 0.0
    done, total = (sum(getattr(job.progress, name) for job in jobs) for name in ("done", "total"))
    newest = jobs[0]
    if newest.status not in ENDED:
        verb = KINDS.get(newest.kind, newest.kind.replace("_", " ").capitalize())
        stage = newest.progress.stage or ("waiting" if newest.status == "queued" else "")
        words = f"{verb}: {done:,} of {total:,}" if total else verb
        return f"{words} · {stage}" if stage else words, "running", done / total if total else 0.0
    lost = len((newest.result or {}).get("failed", ()))
    if newest.status == "succeeded" and lost:
        return f"Last job: {lost} failed", "failed", 1.0
    return f"Last job: {newest.status}", TONES[newest.status], 1.0


def _of(name: str, collection: object) -> str:
    return f"{name} of {collection}" if collection else name


def _dropped(builds: Collection[str]) -> Advice | None:
    if not builds:
        return None
    gone = " and ".join(word for build, word in _BUILDS.items() if build in builds)
    todo = "Rebuild to have one again." if "waiting" in builds else "A rebuild makes a new one."
    return Advice(f"{gone} went with deleted text".capitalize(), f"Its bytes had to leave the disk. {todo}", "warn")


def _todo(error: JobFailure) -> str:
    return _TODO.get(error.kind, _TODO["internal"])


def _steps(item: ItemState, took_ms: Mapping[str, float]) -> list[Step]:
    stages = STAGES if "url" in item.input or "fetch" in took_ms else STAGES[1:]
    whole = item.status == "succeeded" and not took_ms  # nothing had to be done
    return [
        Step(stage, duration(took_ms[stage]) if stage in took_ms else "not needed" if whole else "") for stage in stages
    ]


def _word(job: JobState, item: ItemState, steps: Sequence[Step]) -> str:
    if item.status == "succeeded":
        return str((item.result or {}).get("happened") or (item.result or {}).get("status") or "done")
    if item.status == "begun" and job.status == "running":
        return next((step.stage for step in steps if not step.took), "recording" if steps else "running")
    return "waiting" if item.status == "begun" else item.status


def _detail(told: Mapping[str, object], took_ms: Mapping[str, float]) -> str:
    chunks = told.get("chunks")
    parts = [counted(chunks, "chunk")] if isinstance(chunks, int) else []
    if took_ms:
        parts.append(duration(sum(took_ms.values())))
    return " · ".join(parts)


def _took_ms(job: JobState) -> float | None:
    if job.started_at is None or job.ended_at is None:
        return None
    return (job.ended_at - job.started_at).total_seconds() * 1e3
