"""Writes traces into MLflow, many in one transaction.

MLflow's span store upserts by trace and span id, which is what makes sending again harmless. Its logging client is
not used: it keeps a queue in memory, drops from it silently and needs a transaction a trace.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.telemetry.mlflow_trace import MlflowSpan, Opinion

EXPERIMENT = "pilothouse"
THUMB = "thumbs_up"
MAX_SOURCE_CHARS = 250  # of MLflow's column


class MlflowSink:
    """A tracking store by URI: a database that is written directly, or a server's OTLP door. Blocking; one thread."""

    def __init__(self, tracking_uri: str, artifacts: Path, *, experiment: str = EXPERIMENT) -> None:
        self._tracking_uri, self._artifacts, self._experiment = tracking_uri, artifacts, experiment
        self._store: Any = None
        self._experiment_id = ""

    def write(self, traces: Sequence[Sequence[MlflowSpan]]) -> None:
        """Write them all or, when it raises, none. Opens the store, and migrates it, at the first call."""
        if self._store is None:
            self._open()
        from mlflow.entities import Span  # loaded with the store; see _open

        self._store.log_spans(self._experiment_id, [Span.from_dict(span) for trace in traces for span in trace])

    def assess(self, trace: str, opinions: Sequence[Opinion]) -> None:
        """One assessment a user, as a person's feedback: true for a thumb up, the comment as its rationale."""
        from mlflow.entities import AssessmentSource, Feedback  # loaded with the store; see _open

        held = {
            one.source.source_id: one
            for one in self._store.get_trace_info(trace).assessments
            if one.name == THUMB and one.source.source_type == "HUMAN"
        }
        for opinion in opinions:
            user, moment_ms = opinion.user_id[:MAX_SOURCE_CHARS], int(opinion.created_at.timestamp() * 1_000)
            given = Feedback(
                name=THUMB,
                value=opinion.rating == "up",
                rationale=opinion.comment,
                source=AssessmentSource("HUMAN", user),
                trace_id=trace,
                create_time_ms=moment_ms,
                last_update_time_ms=moment_ms,
            )
            earlier = held.get(user)
            if earlier is None:
                self._store.create_assessment(given)
            elif (earlier.value, earlier.rationale or "") != (given.value, given.rationale):
                self._store.update_assessment(
                    trace, earlier.assessment_id, feedback=given.feedback, rationale=given.rationale
                )

    def _open(self) -> None:
        # Importing MLflow takes seconds and hundreds of MB: here, in the exporter's process, never in the API's.
        from mlflow.exceptions import MlflowException
        from mlflow.tracking._tracking_service.utils import _get_store

        self._artifacts.mkdir(parents=True, exist_ok=True)
        if self._tracking_uri.startswith("sqlite:///"):
            Path(self._tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        store = _get_store(store_uri=self._tracking_uri, artifact_uri=self._artifacts.resolve().as_uri())
        experiment = store.get_experiment_by_name(self._experiment)
        if experiment is None:
            try:
                self._experiment_id = store.create_experiment(self._experiment)
            except MlflowException:  # somebody else was quicker
                experiment = store.get_experiment_by_name(self._experiment)
                if experiment is None:
                    raise
        if experiment is not None:
            self._experiment_id = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                store.restore_experiment(self._experiment_id)
        self._store = store
