"""Reads a request's body: orjson for what is plain, the strict reader for whatever it refuses.

Both end in the same value: nesting to 64 levels, a million values, no NaN, lone surrogates as U+FFFD.
"""

import re
from typing import Any, Final

import orjson
from starlette.types import Receive

from app.api import body as strict
from app.api.errors import Refused
from app.api.v1.refusal import BadRequest

_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


async def read(receive: Receive) -> bytes:
    """The whole body. Raises Refused for one over its limit, BadRequest for a client that left."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        pieces = [body]
        while message.get("more_body"):
            message = await receive()
            pieces.append(message.get("body", b""))
        body = b"".join(pieces)
    if message["type"] == "http.disconnect":
        raise BadRequest("the client left before its request was whole")
    return body


def loads(body: bytes) -> Any:
    """The body's value. Raises Refused (400)."""
    # Counting bytes costs nothing next to parsing, and bounds what a parser may build from them.
    commas = body.count(b",")
    if commas > strict.MAX_VALUES and _STRINGS.sub(b"", body).count(b",") > strict.MAX_VALUES:
        raise Refused(400, "malformed_json", f"the body holds more than {strict.MAX_VALUES} values")
    if commas <= strict.MAX_VALUES:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            pass  # the strict reader reads surrogates and says what is wrong with the rest
        else:
            if body.count(b"[") + body.count(b"{") <= strict.MAX_DEPTH or not _is_deep(value):
                return value
    return strict.loads(body)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(strict.MAX_DEPTH):
        inner: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                inner.extend(node.values())
            elif isinstance(node, list):
                inner.extend(node)
        if not inner:
            return False
        level = inner
    return any(isinstance(node, dict | list) for node in level)
