"""Runs a suite through the same door as production and logs it as an MLflow run."""

import subprocess
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from app.records import AnswerCard, Principal, RunRequest
from app.settings import Settings
from app.telemetry.spans import RunTrace
from app.workbench import Workbench, open_workbench
from evals.cases import Case, Dataset, load
from evals.compare import Interval, bootstrap, difference
from evals.metrics import answers, citations, retrieval
from evals.metrics.score import Score
from evals.suites import Suite, suite
from graphs.catalog import fingerprint
from graphs.types import Passage

EVALUATOR = Principal("_evals", "evals", frozenset({"chat"}), "evals")
SEARCHED = 50  # deep enough that a gold chunk which no leg finds is counted as missing, not as unknown
EXPERIMENT = "pilothouse-evals"

Row = dict[str, object]


async def run_suite(
    settings: Settings,
    *,
    suite: str = "handbook",
    split: str = "test",
    limit: int | None = None,
    models: tuple[str, ...] = (),
    console: Console,
) -> int:
    """Run it, on the suite's models or on those named, print and log the table; the exit code. Raises Missing."""
    chosen = _suite(suite)
    if models:
        chosen = replace(chosen, models=models)
    dataset = load(chosen.dataset, split, limit)
    with TemporaryDirectory(prefix="pilothouse-eval-") as home:
        # A home of its own: an evaluation leaves no conversations behind and starts from the packaged handbook.
        own = settings.model_copy(update={"home": Path(home), "export_traces": False, "database_url": None})
        async with AsyncExitStack() as stack:
            bench = await stack.enter_async_context(open_workbench(own))
            await bench.until_ready()
            rows = await _score_all(bench, chosen, dataset, console)
            index = (await _search(bench, dataset.cases[0].question, 1))[1]
    frame = pl.DataFrame(rows)
    table = summary(frame, chosen)
    console.print(_shown(table, f"{chosen.name}, {split}, n = {len(dataset.cases)}"))
    run_id = _log(settings, chosen, dataset, split, index, frame, table)
    console.print(f"Logged as MLflow run {run_id}; `make mlflow` opens it.", style="dim")
    return 0


def _suite(name: str) -> Suite:
    return suite(name)


async def _score_all(bench: Workbench, chosen: Suite, dataset: Dataset, console: Console) -> list[Row]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(chosen.name, total=len(dataset.cases) * len(chosen.models))
        for case in dataset.cases:
            ranking, _ = await _search(bench, case.question, SEARCHED)
            found = retrieval.scores(ranking, retrieval.relevant(ranking, case.gold))
            # Interleaved, so that a slow minute of the machine falls on all models alike.
            for model in chosen.models:
                request = RunRequest(case.question, chosen.mode, model=model, feature="eval")
                card = await bench.runner.run(EVALUATOR, request)
                rows.append(_row(case, model, card, found | await _score(case, card)))
                progress.advance(task)
    return rows


async def _search(bench: Workbench, question: str, limit: int) -> tuple[tuple[Passage, ...], str]:
    found = await bench.retriever(EVALUATOR.tenant_id, RunTrace("eval")).search(question, limit=limit)
    return found.passages, found.index_version


async def _score(case: Case, card: AnswerCard) -> dict[str, Score]:
    if card.status != "completed":
        failed = Score(None, card.error.code if card.error else card.status)
        return dict.fromkeys(("token_f1", "holds_answer", "citation_precision", "right_refusal"), failed)
    # A refusal of a question that has an answer scores 0 on that answer, not nothing.
    said = card.answer if card.answered else ""
    return {
        "token_f1": answers.token_f1(said, case.answers),
        "holds_answer": answers.holds_answer(said, case.answers),
        "citation_precision": citations.citation_precision(card, case.gold, case.wants_answer),
        "right_refusal": citations.right_refusal(card, case.wants_answer),
    } | await answers.ragas_scores(said, case.answers)


def _row(case: Case, model: str, card: AnswerCard, scores: dict[str, Score]) -> Row:
    return {
        "id": case.id,
        "kind": case.kind,
        "model": model,
        "answerable": case.wants_answer,
        "status": card.status,
        "answered": card.answered,
        "answer": card.answer,
        "validation": card.validation,
        "latency_ms": card.latency_ms,
        "model_version": card.model_version,
        "prompt_version": card.prompt_version,
        **{name: score.value for name, score in scores.items()},
    }


METRICS = (
    "recall@1",
    "recall@6",
    "ndcg@10",
    "token_f1",
    "holds_answer",
    "ragas_string_presence",
    "ragas_string_similarity",
    "citation_precision",
    "right_refusal",
    "refused_unanswerable",
    "answered_answerable",
)


def summary(frame: pl.DataFrame, chosen: Suite) -> dict[str, dict[str, Interval | None]]:
    """Mean with its interval by metric and model, and under `difference` candidate minus baseline, paired."""
    # A run that failed neither refused nor answered.
    refused = pl.when(pl.col("status") == "completed").then((~pl.col("answered")).cast(pl.Float64))
    frame = frame.with_columns(
        refused_unanswerable=pl.when(~pl.col("answerable")).then(refused),
        answered_answerable=pl.when(pl.col("answerable")).then(1 - refused),
    )
    table: dict[str, dict[str, Interval | None]] = defaultdict(dict)
    values = {
        model: frame.filter(pl.col("model") == model).sort("id") for model in frame["model"].unique(maintain_order=True)
    }
    for metric in METRICS:
        for model, rows in values.items():
            known = rows[metric].drop_nulls().to_list()
            table[metric][model] = bootstrap(known) if known else None
        candidate = next((model for model in values if model != chosen.baseline), None)
        if candidate and chosen.baseline in values:
            pair = values[candidate][metric].to_list(), values[chosen.baseline][metric].to_list()
            table[metric]["difference"] = difference(*pair)
    return dict(table)


def _shown(table: dict[str, dict[str, Interval | None]], title: str) -> Table:
    names = list(next(iter(table.values())))
    shown = Table("metric", *names, "n", title=title, title_justify="left", box=None, pad_edge=False)
    for metric, row in table.items():
        n = max((interval.n for interval in row.values() if interval), default=0)
        shown.add_row(metric, *("unscored" if row[name] is None else str(row[name]) for name in names), str(n))
    return shown


def _log(
    settings: Settings,
    chosen: Suite,
    dataset: Dataset,
    split: str,
    index_version: str,
    frame: pl.DataFrame,
    table: dict[str, dict[str, Interval | None]],
) -> str:
    # Importing MLflow takes seconds; only a finished evaluation needs it.
    import mlflow

    mlflow.set_tracking_uri(settings.tracking_uri)
    settings.mlruns.mkdir(parents=True, exist_ok=True)
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        artifacts = (settings.mlruns / "artifacts").resolve().as_uri()
        mlflow.create_experiment(EXPERIMENT, artifact_location=artifacts)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=f"{chosen.name} {datetime.now(UTC):%Y-%m-%d %H:%M}") as run:
        mlflow.log_params(
            {
                "suite": chosen.name,
                "mode": chosen.mode,
                "models": ",".join(chosen.models),
                "split": split,
                "cases": len(dataset.cases),
                "dataset": dataset.name,
                "dataset_sha256": dataset.sha256,
                "graph_fingerprint": fingerprint(chosen.mode),
                "index_version": index_version,
                "commit": _commit(),
            }
        )
        for metric, row in table.items():
            for name, interval in row.items():
                if interval is not None:
                    mlflow.log_metric(f"{metric.replace('@', '_at_')}.{name}", interval.mean)
        with TemporaryDirectory() as folder:
            frame.write_parquet(Path(folder) / "cases.parquet")
            mlflow.log_artifact(str(Path(folder) / "cases.parquet"))
        return str(run.info.run_id)


def _commit() -> str:
    here = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)  # noqa: S607
    return found.stdout.strip() or "unknown"
