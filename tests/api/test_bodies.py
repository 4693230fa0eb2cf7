"""Bodies of every wrong kind: refused before they cost anything, in one shape, without repeating what was sent."""

import json
import socket
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api import deps
from app.api.body import MAX_DEPTH, loads
from app.api.errors import Refused
from app.api.public import small_body_bytes
from app.services.store import page
from app.settings import Settings
from tests.api.served import Served

JSON = {"Content-Type": "application/json"}
SECRET = "canary-5e1f"


def problem_of(answer: httpx.Response) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    assert problem["requestId"] == answer.headers["x-request-id"]
    assert problem.keys() >= {"type", "title", "detail", "code"}
    return problem


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"nul",
        b'{"message": "say x"} extra',
        b'{"message": "\xff\xfe"}',
        b'\xff\xfe{\x00"\x00',
        b'{"message": NaN}',
        b'{"message": "say x", "filter": {"a": Infinity}}',
        b'{"message": "say x", "filter": {"a": -Infinity}}',
        b'{"message": "say x", "filter": {"a": 1e999}}',
        b'{"message": "say x", "filter": {"a": ' + b"9" * 5_000 + b"}}",
        b'{"message": "say x", "filter": {"a": 99999999999999999999}}',
        b'{"message": "say x", "message": "say y"}',
        b'{"message": "say x", "filter": {"a": 1, "a": 2}}',
        b'{"message": ' + b"[" * 40_000,
        b"[" * 40_000 + b"]" * 40_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" + b"[]," * 40_000 + b"[]]",
    ],
)
def test_v01_what_is_not_json_is_refused(ann: httpx.Client, body: bytes) -> None:
    answer = ann.post("/api/ai/chat", content=body, headers=JSON)
    assert answer.status_code in {400, 422}
    assert problem_of(answer)["code"] in {"malformed_json", "invalid_input"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "message"),
        ({"message": ""}, "message"),
        ({"message": " \n\t "}, "message"),
        ({"message": "x" * 8_001}, "message"),
        ({"message": 1}, "message"),
        ({"message": None}, "message"),
        ({"message": ["say x"]}, "message"),
        ({"message": "say x", "mode": SECRET}, "mode"),
        ({"message": "say x", "mode": 1}, "mode"),
        ({"message": "say x", "stream": "yes"}, "stream"),
        ({"message": "say x", "collection": "../etc"}, "collection"),
        ({"message": "say x", "collection": "x\n"}, "collection"),
        ({"message": "say x", "model": ""}, "model"),
        ({"message": "say x", "filter": {"a' OR 1=1": 1}}, "filter"),
        ({"message": "say x", "filter": {"a": [SECRET]}}, "filter"),
        ({"message": "say x", "filter": SECRET}, "filter"),
        ({"message": "say x", "feature": "\u202e"}, "feature"),
        ({"message": "say x", "unknownField": SECRET}, "unknownField"),
        ({"message": "say x", "conversation_id": "a", "conversationId": 1}, "conversationId"),
    ],
)
def test_a_wrong_field_is_named_and_not_repeated(ann: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = ann.post("/api/ai/chat", json=body)
    problem = problem_of(answer)
    assert (answer.status_code, problem["code"]) == (422, "invalid_input")
    assert problem["field"] == field
    assert all(error["message"] for error in problem["errors"])
    assert SECRET not in answer.text


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(ann: httpx.Client, body: bytes) -> None:
    assert problem_of(ann.post("/api/ai/chat", content=body, headers=JSON))["status"] == 422


def test_a_form_where_json_is_meant_is_told_so(ann: httpx.Client) -> None:
    problem = problem_of(ann.post("/api/ai/chat", data={"message": "say x"}))
    assert "application/json" in problem["detail"]


def test_the_longest_message_fits_in_its_widest_spelling(ann: httpx.Client) -> None:
    body = b'{"message": "' + b"\\ud83d\\udea2" * 8_000 + b'"}'
    # It may be too long for the model; it is not for the door.
    assert ann.post("/api/ai/chat", content=body, headers=JSON).json().get("code") in {None, "prompt_too_long"}


@pytest.mark.parametrize(
    ("path", "kind", "size"),
    [
        ("/api/ai/chat", "application/json", small_body_bytes(Settings()) + 1),
        ("/api/ai/keys", "application/json", small_body_bytes(Settings()) + 1),
        ("/api/ai/documents", "application/json", 32 * 1024 * 1024 + 1),
        ("/api/ai/documents", "multipart/form-data; boundary=x", 100 * 1024 * 1024),
        ("/login", "application/x-www-form-urlencoded", 1024 * 1024),
    ],
)
def test_v01_v06_a_body_over_its_limit_is_refused_by_its_declared_length(
    server: Served, path: str, kind: str, size: int
) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {server.keys['owner']}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
    )
    assert raw(server, head.encode()).startswith(b"HTTP/1.1 413 ")


def test_v01_a_body_over_its_limit_is_refused_as_it_is_counted(ann: httpx.Client) -> None:
    answer = ann.post("/api/ai/chat", content=(b" " * 65_536 for _ in range(64)), headers=JSON)
    assert problem_of(answer)["code"] == "too_large"


def test_a_client_that_sends_it_all_still_reads_the_refusal(ann: httpx.Client) -> None:
    files = {"file": ("big.txt", b"x" * (33 * 1024 * 1024))}
    answer = ann.post("/api/ai/documents", data={"collection": "big"}, files=files)
    assert (answer.status_code, problem_of(answer)["code"]) == (413, "too_large")
    assert ann.get("/api/ai/documents", params={"collection": "big"}).json()["items"] == []


@pytest.mark.parametrize("length", ["-1", "x", "1_0", "1, 2", "0x10", "9" * 400, "", " "])
def test_v03_a_length_that_is_none_gets_no_answer_but_a_refusal(server: Served, length: str) -> None:
    head = f"POST /api/ai/chat HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {server.keys['ann']}\r\n"
    said = raw(server, f"{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{}}".encode())
    assert said[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 422"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/ai/chat", 405),
        ("PUT", "/api/ai/runs", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/api/ai/nothing", 404),
        ("GET", "/api/ai/runs/", 404),
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
    ],
)
def test_unknown_routes_and_methods_are_problems(ann: httpx.Client, method: str, path: str, status: int) -> None:
    answer = ann.request(method, path)
    assert problem_of(answer)["status"] == status
    assert (status != 405) or answer.headers["allow"]


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"limit": -1}, 200),
        ({"limit": 0}, 200),
        ({"limit": 10**9}, 200),
        ({"limit": "x"}, 422),
        ({"cursor": "x"}, 422),
        ({"cursor": "W10"}, 422),
        ({"cursor": "\u00e9"}, 422),
        ({"mode": "x"}, 422),
        ({"status": "x"}, 422),
        ({"since": "yesterday"}, 422),
        ({"since": "2026-01-01T00:00:00"}, 422),
        ({"text": "%_\\'"}, 200),
        ({"text": "\x00"}, 200),
    ],
)
def test_v12_a_page_is_asked_for_within_limits(ann: httpx.Client, params: dict[str, Any], status: int) -> None:
    answer = ann.get("/api/ai/runs", params=params)
    assert answer.status_code == status
    if status != 200:
        assert problem_of(answer)["field"] == next(iter(params))


def test_a_page_here_is_as_long_as_a_page_of_the_store() -> None:
    assert deps.MAX_LIMIT == page.MAX_LIMIT


def test_the_failure_of_a_route_tells_nothing_but_its_id(
    server: Served, ann: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(server.bench.store.runs, "list", broken)
    answer = ann.get("/api/ai/runs")
    assert (answer.status_code, problem_of(answer)["code"]) == (500, "internal_error")
    assert SECRET not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def raw(server: Served, request: bytes) -> bytes:
    """The first bytes of the answer to what no well-behaved client sends."""
    with socket.create_connection(server.address, timeout=20) as wire:
        wire.sendall(request)
        return wire.recv(65_536)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Every character but the surrogates, which come as escapes below.
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_every_json_value_comes_through_as_it_was(value: Any) -> None:
    for ascii_only in (True, False):
        assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200))
def test_every_other_body_is_refused_and_never_an_accident(body: bytes) -> None:
    with suppress(Refused):
        loads(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_v01_nesting_is_bounded_at_the_same_depth_however_it_is_written(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    assert loads(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH) is not None
    with pytest.raises(Refused, match="deeper"):
        loads(opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1))


def test_brackets_inside_strings_are_text() -> None:
    text = "[{" * 1_000 + '\\"' + "[" * 1_000
    assert loads(json.dumps({"text": text}).encode()) == {"text": text}


def test_v01_many_values_are_refused_before_they_are_built() -> None:
    with pytest.raises(Refused, match="values"):
        loads(b"[" + b"0," * 1_100_000 + b"0]")


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 2_000_000, b'["' + b"[" * 4_000_000])
def test_v08_a_string_that_never_ends_is_read_once(body: bytes) -> None:
    with pytest.raises(Refused):
        loads(body)
