"""What all wires share: JSON as model servers write it, counts that may be garbage, tool calls in pieces."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from graphs.errors import UpstreamError
from graphs.types import ToolProposal, Usage

MAX_COUNT: Final = 1 << 31  # a count of tokens above it is garbage


def parse(data: str | bytes) -> Any:
    """One event's JSON. NaN and lone surrogates, which orjson refuses, are read, and so are bytes that are no UTF-8;
    U+FFFD stands for what cannot be."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        return readable(json.loads(text, strict=False))


def parse_event(model: str, data: str | bytes) -> Any:
    """The same; raises UpstreamError for what is not JSON."""
    try:
        return parse(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamError(f"{model} sent an event that is not JSON") from error


@contextmanager
def counted(told: Callable[[], Usage | None]) -> Iterator[None]:
    """Has an UpstreamError carry the usage that the server had told by then."""
    try:
        yield
    except UpstreamError as error:
        error.usage = told()
        raise


def dump(said: Mapping[str, Any]) -> bytes:
    """A request's JSON, without the fields that are None."""
    given = {name: value for name, value in said.items() if value is not None}
    try:
        return orjson.dumps(given)
    except TypeError:  # a lone surrogate: orjson refuses to write one, and no model can read one
        return orjson.dumps(readable(given))


def readable(value: Any) -> Any:
    """The same JSON value with U+FFFD for lone surrogates; halves of one character are joined."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {readable(key): readable(item) for key, item in value.items()}
    return [readable(item) for item in value] if isinstance(value, list | tuple) else value


def count_of(value: Any) -> int | None:
    """A count of tokens; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN fails every comparison and infinity the upper one; a whole float (7.0) is a count.
    return int(value) if 0 <= value < MAX_COUNT and value == int(value) else None


def is_closed(schema: Any) -> bool:
    """Whether every object in the schema names and requires all of its properties."""
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if schema.get("type") == "object" or properties is not None:
            names = set(properties or {})
            if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != names:
                return False
        return all(is_closed(value) for value in schema.values())
    return all(is_closed(item) for item in schema) if isinstance(schema, list | tuple) else True


@dataclass(slots=True)
class PartialCall:
    """A tool call while its pieces arrive."""

    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.arguments)

    def proposal(self, model: str, number: int) -> ToolProposal:
        """The whole call. Raises UpstreamError without a name, or for arguments that are not a JSON object.

        Arguments that were cut are never mended: half a call could do something else than was asked for.
        """
        try:
            arguments = parse(self.text or "{}")
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{model} asked for a tool with arguments that are not JSON") from error
        if not self.name or not isinstance(arguments, dict):
            raise UpstreamError(f"{model} asked for a tool without a name or an object of arguments")
        return ToolProposal(self.call_id or f"call_{number}", self.name, arguments)
