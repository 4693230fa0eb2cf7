"""What a tool is: a specification that a model reads and one coroutine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from graphs.types import Passage, ToolSpec


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that is granted, well-formed and, where policy asks for it, approved.

    `idempotency_key` is the same when the same call runs again after a crash, and unique across runs.
    """

    arguments: Mapping[str, Any]
    tenant_id: str
    user_id: str
    run_id: str
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool found or did, as text for a model; `passages` are what it brought to read and cite."""

    content: str
    passages: tuple[Passage, ...] = ()
    index_version: str = ""


class Tool(Protocol):
    """`examples` are questions that the tool answers; they help to find it, no model reads them."""

    @property
    def spec(self) -> ToolSpec: ...

    @property
    def examples(self) -> tuple[str, ...]: ...

    async def run(self, call: ToolCall) -> ToolOutput:
        """Raises ToolRetry (the arguments can be mended), ToolRefused (final) or a PilothouseError."""
        ...
