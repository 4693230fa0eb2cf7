import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from app.records import AnswerCard, CardError, CardStation, CardTool, CardUsage
from app.telemetry.logs import JsonLines, Redact, configure_logging, log_run

KEY = "ph_0a1b2c3d_" + "Zx9" * 14


@pytest.fixture
def lines() -> Iterator[Any]:
    root = logging.getLogger()
    former = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("INFO", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], level = former
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_record_is_one_line_of_json_with_its_extra_fields(lines: Any) -> None:
    logging.getLogger("pilothouse.test").warning("two\nlines of %s", "text", extra={"requestId": "r1", "ids": ("a",)})
    (line,) = lines()
    assert line["message"] == "two\nlines of text"
    assert (line["level"], line["logger"], line["requestId"], line["ids"]) == (
        "warning",
        "pilothouse.test",
        "r1",
        ["a"],
    )
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


@pytest.mark.parametrize("secret", [KEY, "Bearer abc.def-ghi_jkl", "bearer 0123456789abcdef"])
def test_no_key_reaches_a_log_by_any_way(lines: Any, secret: str) -> None:
    logger = logging.getLogger("pilothouse.test")
    logger.info("key %s", secret, extra={"header": {"authorization": [secret]}})
    try:
        int(secret)
    except ValueError:
        logger.exception("failed")
    assert secret.split()[-1] not in json.dumps(lines())
    assert "ValueError: invalid literal" in lines()[1]["exception"]


def test_nothing_a_terminal_would_obey_is_written(lines: Any) -> None:
    logging.getLogger("pilothouse.test").info(
        "\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \x9b31m", extra={"a": "\x1b[2J"}
    )
    (line,) = lines()
    assert line["message"] == "red bell 31m"
    assert line["a"] == ""


def test_a_message_that_is_not_valid_unicode_is_still_written() -> None:
    # Through the handler's own parts: a parallel test run cannot send such a text on as captured output.
    record = logging.makeLogRecord({"msg": "lone \ud800", "name_": "\udfff"})
    assert Redact().filter(record)
    assert json.loads(JsonLines().format(record))["message"] == "lone ?"


def test_a_runs_line_holds_every_field_and_no_contents(lines: Any) -> None:
    log_run(
        AnswerCard(
            request_id="r1",
            conversation_id="c1",
            mode="agent",
            status="failed",
            answer="SECRET-ANSWER",
            prompt_version="agent@3",
            model="smollm2",
            model_version="q8",
            provider="llamacpp",
            graph_fingerprint="f00d",
            index_version="7",
            retrieved_chunk_ids=("k1", "k2"),
            tools=(CardTool(call_id="t1", name="create_ticket", arguments={"title": "SECRET-ARG"}, status="ok"),),
            stations=(CardStation(name="screen", started_ms=0, latency_ms=1.5),),
            usage=CardUsage(input_tokens=10, output_tokens=3, calls=1, cost_usd_micros=12),
            validation="supported",
            error=CardError(kind="upstream", code="upstream_timeout", message="no answer in 30 s"),
            created_at=datetime(2025, 3, 1, tzinfo=UTC),
        ),
        tenant_id="acme",
        user_id="ada",
    )
    (line,) = lines()
    assert line["level"] == "error"
    assert line | {"time": ""} == {
        "time": "",
        "level": "error",
        "logger": "pilothouse.runs",
        "message": "run failed",
        "requestId": "r1",
        "conversationId": "c1",
        "tenantId": "acme",
        "userId": "ada",
        "mode": "agent",
        "status": "failed",
        "promptVersion": "agent@3",
        "model": "smollm2",
        "modelVersion": "q8",
        "provider": "llamacpp",
        "graphFingerprint": "f00d",
        "indexVersion": "7",
        "embedder": "",
        "retrievedChunkIds": ["k1", "k2"],
        "tools": [{"callId": "t1", "name": "create_ticket", "status": "ok"}],
        "verdicts": [],
        "stations": [{"name": "screen", "latencyMs": 1.5}],
        "latencyMs": 0.0,
        "inputTokens": 10,
        "outputTokens": 3,
        "tokensEstimated": False,
        "costUsdMicros": 12,
        "validation": "supported",
        "error": {
            "kind": "upstream",
            "code": "upstream_timeout",
            "message": "no answer in 30 s",
            "retry_after_s": None,
        },
        "createdAt": "2025-03-01T00:00:00+00:00",
    }


def test_a_ready_made_line_reaches_the_log_as_it_is_and_never_a_terminal() -> None:
    record = logging.makeLogRecord(
        {"msg": "request", "levelno": 20, "levelname": "INFO", "line": {"path": "/a\x1b[31mb\ud800", "status": 200}}
    )
    assert Redact().filter(record)
    line = json.loads(JsonLines().format(record))
    assert (line["path"], line["status"], line["message"]) == ("/ab?", 200, "request")
