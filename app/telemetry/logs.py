"""Structured logs: one JSON object a line, with no keys in it and nothing that a terminal would obey."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from app.records import AnswerCard
from app.telemetry.faults import trace
from app.telemetry.redact import printable, redact
from app.telemetry.safe import safe

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access")

runs = logging.getLogger("pilothouse.runs")


class Redact(logging.Filter):
    """Takes key-shaped strings out of a record's message, exception and extra fields.

    A record that comes with a `line` is passed as it is: that costs a tenth, and its maker has seen to every value.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "line"):
            return True
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = _exception(record)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        for name in vars(record).keys() - _STANDARD:
            setattr(record, name, safe(getattr(record, name)))  # redacts every string it meets
        return True


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, the record's extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (given := getattr(record, "line", None)) is not None:
            return orjson.dumps(line | {name: _printable(value) for name, value in given.items()}).decode()
        line |= {name: safe(value) for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and not record.exc_text:
            record.exc_text = _exception(record)
        if record.exc_text:
            line["exception"] = record.exc_text
        return orjson.dumps(_printable(line)).decode()


def _exception(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return "" if error is None else trace(error)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return value


def configure_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every logger of this process to `stream` (stderr by default) as JSON lines. Later calls replace earlier."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(Redact())
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)
    # No line tells them, and looking for them is a third of its cost; see "Optimization" in logging's documentation.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def log_run(card: AnswerCard, *, tenant_id: str, user_id: str) -> None:
    """One line for a finished run: everything its row has except contents (question, answer, prompt, arguments)."""
    runs.log(
        logging.ERROR if card.status == "failed" else logging.INFO,
        "run %s",
        card.status,
        extra={
            "requestId": card.request_id,
            "conversationId": card.conversation_id,
            "tenantId": tenant_id,
            "userId": user_id,
            "mode": card.mode,
            "status": card.status,
            "promptVersion": card.prompt_version,
            "model": card.model,
            "modelVersion": card.model_version,
            "provider": card.provider,
            "graphFingerprint": card.graph_fingerprint,
            "indexVersion": card.index_version,
            "embedder": card.embedder,
            "retrievedChunkIds": card.retrieved_chunk_ids,
            "tools": [{"callId": tool.call_id, "name": tool.name, "status": tool.status} for tool in card.tools],
            "verdicts": [f"{verdict.stage}:{verdict.guard}:{verdict.action}" for verdict in card.verdicts],
            "stations": [{"name": station.name, "latencyMs": station.latency_ms} for station in card.stations],
            "latencyMs": card.latency_ms,
            "inputTokens": card.usage.input_tokens,
            "outputTokens": card.usage.output_tokens,
            "tokensEstimated": card.usage.estimated,
            "costUsdMicros": card.usage.cost_usd_micros,
            "validation": card.validation,
            "error": card.error.model_dump() if card.error else None,
            "createdAt": card.created_at,
        },
    )
