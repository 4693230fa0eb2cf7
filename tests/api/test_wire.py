"""What comes on the bare wire, as no well-behaved client would send it: refused, or answered as it should be."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.api.served import Served

LIST = "/api/ai/conversations"


@contextmanager
def wire(server: Served) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=20) as connection:
        yield connection


def everything(connection: socket.socket) -> bytes:
    """Until the server closes."""
    got = b""
    while piece := connection.recv(65_536):
        got += piece
    return got


def head(path: str, key: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", f"X-API-Key: {key}", *lines, "", ""]).encode()


def statuses(got: bytes) -> list[int]:
    """Of the answers on the wire, in their order. No body of ours holds the words that are looked for."""
    return [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]


def test_c05_http_1_0_is_answered_and_its_connection_closed(server: Served) -> None:
    with wire(server) as connection:
        connection.sendall(head(LIST, server.keys["ann"], "Host: localhost", version="1.0"))
        got = everything(connection)
    assert statuses(got) == [200]
    assert json.loads(got.partition(b"\r\n\r\n")[2])["items"] is not None


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_c05_a_request_names_one_host(server: Served, version: str) -> None:
    for hosts in ([], ["Host: localhost", "Host: evil.example"], ["Host: "]):
        with wire(server) as connection:
            connection.sendall(head(LIST, server.keys["ann"], *hosts, "Connection: close", version=version))
            assert statuses(everything(connection)) == [400]


def test_c05_requests_that_come_together_are_answered_in_turn_each_by_its_own_key(server: Served) -> None:
    asked = [("ann", 200), ("nobody", 401), ("eve", 200), ("reader", 403), ("ann", 200)]
    keys = server.keys | {"nobody": "wrong"}
    heads = [head("/api/ai/documents", keys[who], "Host: localhost") for who, _ in asked]
    with wire(server) as connection:
        connection.sendall(b"".join(heads) + head("/healthz", "", "Host: localhost", "Connection: close"))
        got = everything(connection)
    assert statuses(got) == [status for _, status in asked] + [200]


def test_c05_what_stands_behind_a_stream_that_goes_on_waits_for_its_end(server: Served) -> None:
    """Two questions in one piece; neither gets a byte of the other's answer."""
    bodies = [json.dumps({"message": f"say {word}", "stream": True}).encode() for word in ("first", "second")]
    posts = [
        head(
            "/api/ai/chat", server.keys["ann"], "Host: localhost", *more, f"Content-Length: {len(body)}", method="POST"
        ).replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n", 1)
        + body
        for body, more in zip(bodies, ([], ["Connection: close"]), strict=True)
    ]
    with wire(server) as connection:
        connection.sendall(b"".join(posts))
        got = everything(connection)
    assert statuses(got) == [200, 200]
    _, one, other = got.split(b"HTTP/1.1 ")
    assert (b"first" in one, b"second" in one) == (True, False)
    assert (b"first" in other, b"second" in other) == (False, True)


def test_c05_a_client_that_stops_sending_gets_its_answer_or_nothing(server: Served, ann: httpx.Client) -> None:
    with wire(server) as connection:
        connection.sendall(head(LIST, server.keys["ann"], "Host: localhost"))
        connection.shutdown(socket.SHUT_WR)
        assert statuses(everything(connection)) in ([200], [])
    with wire(server) as connection:
        connection.sendall(head("/api/ai/chat", server.keys["ann"], "Host: localhost", "Content-Length: 100")[:60])
        connection.shutdown(socket.SHUT_WR)
        assert statuses(everything(connection)) in ([400], [])
    assert ann.get(LIST).status_code == 200


INNER = b"GET /api/ai/keys HTTP/1.1\r\nHost: localhost\r\nX-API-Key: %s\r\nConnection: close\r\n\r\n"
# Ways in which a proxy and a server have been made to see two different ends of one request.
AMBIGUOUS = {
    "both lengths": ["Content-Length: 4", "Transfer-Encoding: chunked"],
    "both lengths, the other way round": ["Transfer-Encoding: chunked", "Content-Length: 4"],
    "two lengths": ["Content-Length: 4", "Content-Length: 400"],
    "a list of lengths": ["Content-Length: 4, 400"],
    "a length with a sign": ["Content-Length: +4"],
    "a length below nothing": ["Content-Length: -4"],
    "a length in sixteens": ["Content-Length: 0x4"],
    "a length beyond all numbers": ["Content-Length: " + "9" * 40],
    "an encoding that is none": ["Transfer-Encoding: xchunked"],
    "chunked, and then not": ["Transfer-Encoding: chunked, identity"],
    "chunked twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "a space before the colon": ["Transfer-Encoding : chunked"],
    "a folded line": ["Transfer-Encoding:", " chunked"],
    "a control sign": ["Transfer-Encoding: \x0bchunked"],
    "a line end in a value": ["X: a\rTransfer-Encoding: chunked"],
    "a line without a name": [": x"],
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_c05_a_request_with_two_possible_ends_hides_no_second_one(server: Served, name: str) -> None:
    outer = head("/api/ai/chat", server.keys["ann"], "Host: localhost", *AMBIGUOUS[name], method="POST")
    assert_refused(server, outer + b"0\r\n\r\n")


def assert_refused(server: Served, outer: bytes) -> None:
    """And the connection closed, with what stands behind it unread."""
    with wire(server) as connection:
        connection.sendall(outer + INNER % server.keys["owner"].encode())
        try:
            got = everything(connection)
        except ConnectionResetError:  # what was not read took the answer with it
            got = b""
    assert statuses(got) in ([400], []), got
    assert b"keyId" not in got


@pytest.mark.parametrize(
    "chunks",
    [
        b"5;a=\n\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_c05_chunks_that_can_be_read_in_two_ways_hide_nothing(server: Served, chunks: bytes) -> None:
    more = ["Host: localhost", "Transfer-Encoding: chunked", "Content-Type: application/json"]
    assert_refused(server, head("/api/ai/chat", server.keys["ann"], *more, method="POST") + chunks)


def test_c05_a_body_in_chunks_is_the_body(server: Served) -> None:
    body = b'{"message": "say whole"}'
    pieces = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in body) + b"0\r\n\r\n"
    more = ["Host: localhost", "Transfer-Encoding: chunked", "Content-Type: application/json", "Connection: close"]
    with wire(server) as connection:
        connection.sendall(head("/api/ai/chat", server.keys["ann"], *more, method="POST") + pieces)
        got = everything(connection)
    assert statuses(got) == [200]
    assert json.loads(got.partition(b"\r\n\r\n")[2])["answer"] == "whole"
