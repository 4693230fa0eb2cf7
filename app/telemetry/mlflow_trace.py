"""The shape of a run as an MLflow trace: plain dictionaries, in the words of `mlflow.entities.Span.from_dict`.

The trace id is made from the run id and span ids are the run's own, so writing a trace again changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import NAMESPACE_OID, UUID, uuid5

from app.records import AnswerCard, SpanRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = {"run": "CHAIN", "station": "CHAIN", "model": "CHAT_MODEL", "search": "RETRIEVER", "tool": "TOOL"}
_SHOWN_APART = ("inputs", "outputs")  # MLflow has fields of its own for these
_KEPT_WHEN_BARE = ("mlflow.traceRequestId", "mlflow.spanType", "mlflow.traceTag.", "user.id", "session.id")

MlflowSpan = dict[str, Any]


class EndedRun(Protocol):
    """What of a run's row its trace shows."""

    @property
    def run_id(self) -> str: ...
    @property
    def conversation_id(self) -> str | None: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def feature(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def prompt_version(self) -> str: ...
    @property
    def graph_fingerprint(self) -> str: ...
    @property
    def index_version(self) -> str: ...
    @property
    def validation(self) -> str: ...
    @property
    def cost_usd_micros(self) -> int: ...
    @property
    def error_code(self) -> str | None: ...
    @property
    def error_message(self) -> str | None: ...
    @property
    def card(self) -> AnswerCard | None: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime | None: ...


class Opinion(Protocol):
    """A user's thumb and comment."""

    @property
    def user_id(self) -> str: ...
    @property
    def rating(self) -> str: ...
    @property
    def comment(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


def trace_id(run_id: str) -> str:
    """The trace of that run; a run id that is a UUID is found again in it."""
    try:
        return f"tr-{UUID(run_id).hex}"
    except ValueError:
        return f"tr-{uuid5(NAMESPACE_OID, run_id).hex}"


def trace_spans(run: EndedRun, records: Sequence[SpanRecord]) -> list[MlflowSpan]:
    """One root that carries the run, and below it every recorded span.

    A run that was resumed has a root for each of its parts and one that a dead process left has none; both get a root
    made here.
    """
    roots = [record for record in records if record.parent_id is None]
    root = roots[0] if len(roots) == 1 else _made_root(run, records)
    known = {record.span_id for record in records}
    spans = [_span(run, root, None, _root_attributes(run, root))]
    for record in records:
        if record is not root:
            parent = record.parent_id if record.parent_id in known else root.span_id
            spans.append(_span(run, record, parent, _attributes(record)))
    spans[0]["status"] = _status("error" if run.status == "failed" else "ok", run.error_message)
    return spans


def bare_trace(spans: Sequence[MlflowSpan]) -> list[MlflowSpan]:
    """The root of a trace alone and without contents, for one that MLflow refuses as a whole."""
    root = spans[0]
    kept = {name: value for name, value in root["attributes"].items() if name.startswith(_KEPT_WHEN_BARE)}
    return [root | {"attributes": kept | {"mlflow.traceTag.incomplete": json.dumps("true")}}]


def _made_root(run: EndedRun, records: Sequence[SpanRecord]) -> SpanRecord:
    ended_at = run.ended_at or run.created_at
    return SpanRecord(
        span_id=uuid5(NAMESPACE_OID, f"{run.run_id}/root").hex[:16],
        run_id=run.run_id,
        parent_id=None,
        name=run.mode,
        kind="run",
        started_at=min([run.created_at, *(record.started_at for record in records)]),
        ended_at=max([ended_at, *(record.ended_at for record in records)]),
        status="ok",
    )


def _span(run: EndedRun, record: SpanRecord, parent_id: str | None, attributes: dict[str, str]) -> MlflowSpan:
    trace = trace_id(run.run_id)
    error = record.attributes.get("error")
    return {
        "trace_id": trace,
        "span_id": record.span_id,
        "parent_span_id": parent_id,
        "name": record.name,
        "start_time_unix_nano": _nanoseconds(record.started_at),
        "end_time_unix_nano": _nanoseconds(record.ended_at),
        "status": _status(record.status, error.get("message") if isinstance(error, Mapping) else None),
        "attributes": {
            "mlflow.traceRequestId": json.dumps(trace),
            "mlflow.spanType": json.dumps(_KINDS.get(record.kind, "UNKNOWN")),
            **attributes,
        },
    }


def _root_attributes(run: EndedRun, root: SpanRecord) -> dict[str, str]:
    card = run.card.model_dump(mode="json", by_alias=True) if run.card else {}
    # A list of messages is what MLflow takes its request and response previews from.
    inputs = {"messages": [{"role": "user", "content": run.message}], "mode": run.mode}
    outputs = {"messages": [{"role": "assistant", "content": run.answer}], "card": card}
    shown = {"mlflow.spanInputs": _json(inputs), "mlflow.spanOutputs": _json(outputs)}
    return _attributes(root) | _tags(run, root) | shown


def _tags(run: EndedRun, root: SpanRecord) -> dict[str, str]:
    tags = {
        "mlflow.traceName": root.name,
        "requestId": run.run_id,
        "tenant": run.tenant_id,
        "feature": run.feature,
        "status": run.status,
        "model": run.model,
        "provider": run.provider,
        "promptVersion": run.prompt_version,
        "graphFingerprint": run.graph_fingerprint,
        "indexVersion": run.index_version,
        "validation": run.validation,
        "errorCode": run.error_code or "",
    }
    attributes = {f"mlflow.traceTag.{name}": _json(value) for name, value in tags.items() if value}
    attributes["user.id"] = _json(run.user_id)
    if run.conversation_id:
        attributes["session.id"] = _json(run.conversation_id)
    if run.cost_usd_micros:
        attributes["mlflow.llm.cost"] = _json({"total_cost": run.cost_usd_micros / 1e6})
    return attributes


def _attributes(record: SpanRecord) -> dict[str, str]:
    noted = record.attributes
    attributes = {name: _json(value) for name, value in noted.items() if name not in _SHOWN_APART}
    if "inputs" in noted:
        attributes["mlflow.spanInputs"] = _json(noted["inputs"])
    if "outputs" in noted:
        attributes["mlflow.spanOutputs"] = _json(noted["outputs"])
    if record.kind == "model":
        tokens = {name: int(noted.get(name) or 0) for name in ("input_tokens", "output_tokens")}
        attributes["mlflow.chat.tokenUsage"] = _json(tokens | {"total_tokens": sum(tokens.values())})
        attributes["mlflow.llm.model"] = _json(noted.get("model") or record.name)
        attributes["mlflow.llm.provider"] = _json(noted.get("provider") or "")
    return attributes


def _status(status: str, message: str | None) -> dict[str, str]:
    code = "STATUS_CODE_ERROR" if status == "error" else "STATUS_CODE_OK"
    return {"code": code, "message": message or "" if status == "error" else ""}


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
