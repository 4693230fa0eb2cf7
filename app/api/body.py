"""JSON bodies, read strictly: what two parsers could understand differently is refused before a schema sees it.

Refused: bytes that are not UTF-8, a key twice in one object, NaN and the infinities, numbers beyond 64 bits, nesting
over 64 levels, more than a million values. A lone surrogate becomes U+FFFD, as the store would write it.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from app.api.errors import Refused

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 1_000_000
READ_AT_ONCE_BYTES: Final = 128 * 1024  # some milliseconds; what is larger is read in a thread
_INT_RANGE: Final = (-(2**63), 2**64 - 1)

# A string counts as one token, closed or not; possessive, so that no input makes it look twice.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]},]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(body: bytes) -> Any:
    """The value. Raises Refused (400) that says what is wrong without repeating it."""
    _check_shape(body)
    try:
        value = json.loads(
            body.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_int=_int,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise _malformed(f"the body is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _malformed(f"the body is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _malformed(f"the body is nested deeper than {MAX_DEPTH} levels") from error
    return _encodable(value) if _SURROGATE.search(body) else value


Shape = TypeVar("Shape", bound=BaseModel)


def valid(shape: type[Shape], value: Any) -> Shape:
    """The value in that shape; what is wrong is reported as FastAPI would."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from error


class StrictRequest(Request):
    """A request whose JSON goes through `loads`."""

    async def json(self) -> Any:
        body = await self.body()
        return loads(body) if len(body) <= READ_AT_ONCE_BYTES else await asyncio.to_thread(loads, body)


class StrictRoute(APIRoute):
    """A route that reads its body through `StrictRequest`; for the routers of this package."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return handle


def _check_shape(body: bytes) -> None:
    """Bound depth and number of values before anything is built from them."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH and body.count(b",") <= MAX_VALUES:
        return
    depth = values = 0
    for token in _TOKENS.finditer(body):
        match token[0]:
            case b"[" | b"{":
                depth += 1
                values += 1
                if depth > MAX_DEPTH:
                    raise _malformed(f"the body is nested deeper than {MAX_DEPTH} levels")
            case b"]" | b"}":
                depth -= 1
            case b",":
                values += 1
        if values > MAX_VALUES:
            raise _malformed(f"the body holds more than {MAX_VALUES} values")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _malformed("an object in the body has the same key twice")
    return found


def _encodable(value: Any) -> Any:
    match value:
        case str():
            # Through UTF-16, where escaped pairs that the parser joined stay what they are.
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {_encodable(key): _encodable(item) for key, item in value.items()}
        case list():
            return [_encodable(item) for item in value]
    return value


def _no_constant(name: str) -> float:
    raise _malformed(f"{name} is not JSON")


def _int(digits: str) -> int:
    # 20 characters hold every 64-bit number; longer ones are not even converted, which takes quadratic time.
    if len(digits) <= 20 and _INT_RANGE[0] <= (value := int(digits)) <= _INT_RANGE[1]:
        return value
    raise _malformed("a number in the body is beyond 64 bits")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _malformed("a number in the body is beyond double precision")
    return value


def _malformed(detail: str) -> Refused:
    return Refused(400, "malformed_json", detail)
