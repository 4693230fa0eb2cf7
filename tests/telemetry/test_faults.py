"""Exceptions that carry what they were given, and what is told of them in a log."""

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import orjson
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import BaseModel
from sqlalchemy import create_engine, text
from yarl import URL

from app.telemetry.logs import JsonLines, Redact
from app.telemetry.spans import RunTrace
from graphs.errors import UpstreamError

CANARY = "canary-5105-1051"


class Model(BaseModel):
    """One that does not hide its input, as those of libraries do not."""

    age: int


def client_error() -> None:
    url = URL(f"https://user:{CANARY}@models.example/v1?key={CANARY}")
    info = aiohttp.RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict({"Authorization": CANARY})), url)
    raise aiohttp.ClientResponseError(info, (), status=401, message="Unauthorized")


def database_error() -> None:
    engine = create_engine("sqlite://", hide_parameters=True)
    try:
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO nowhere VALUES (:said)"), {"said": CANARY})
    finally:
        engine.dispose()


def chained() -> None:
    try:
        Model.model_validate({"age": CANARY})
    except ValueError as error:
        raise UpstreamError("the model server answered garbage") from error


def grouped() -> None:
    raise ExceptionGroup("two", [ValueError(f"bad '{CANARY}'"), KeyError(CANARY)])


PROVOKED: dict[str, Callable[[], Any]] = {
    "pydantic": lambda: Model.model_validate({"age": CANARY}),
    "pydantic, JSON": lambda: Model.model_validate_json(f'{{"age": "{CANARY}"}}'),
    "a cause": chained,
    "several": grouped,
    "aiohttp": client_error,
    "aiohttp, a URL": lambda: (_ for _ in ()).throw(aiohttp.InvalidURL(f"http://x/?key={CANARY}")),
    "httpx": lambda: httpx.Response(401, request=httpx.Request("GET", f"https://x/?k={CANARY}")).raise_for_status(),
    "SQLAlchemy": database_error,
    "int": lambda: int(CANARY),
    "a key": lambda: dict[str, str]()[CANARY],
    "json": lambda: json.loads(CANARY),
    "orjson": lambda: orjson.loads(CANARY),
    "a file": lambda: open(f"/nowhere/{CANARY}"),  # noqa: SIM115 - it is not there
    "text": lambda: f"{CANARY}\ud800".encode(),
}


@pytest.mark.parametrize("name", PROVOKED)
def test_p10_a_log_tells_of_an_exception_without_what_it_was_given(name: str) -> None:
    stream, logger = io.StringIO(), logging.getLogger("test.faults")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.addFilter(Redact())
    logger.addHandler(handler)
    try:
        PROVOKED[name]()
    except Exception:
        logger.exception("it failed")
    finally:
        logger.removeHandler(handler)
    line = json.loads(stream.getvalue())
    assert "canary" not in line["exception"]
    assert "test_faults.py" in line["exception"], "where it happened is told"


def test_our_own_errors_and_the_words_of_others_are_told() -> None:
    with pytest.raises(UpstreamError) as raised:
        chained()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.emit(logging.makeLogRecord({"msg": "x", "exc_info": (UpstreamError, raised.value, raised.tb)}))
    exception = json.loads(stream.getvalue())["exception"]
    assert "graphs.errors.UpstreamError: the model server answered garbage" in exception
    assert "age: int_parsing" in exception
    assert "direct cause" in exception


@pytest.mark.parametrize("name", PROVOKED)
def test_p10_a_span_tells_of_an_exception_without_what_it_was_given(name: str) -> None:
    trace = RunTrace("r1")
    with pytest.raises(Exception), trace.root("chat"):  # noqa: B017 - whatever was provoked
        PROVOKED[name]()
    (record,) = trace.records
    assert record.status == "error"
    assert "canary" not in str(record.attributes)
