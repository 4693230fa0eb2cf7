"""What the gateway needs of a model server, whatever its wire."""

from collections.abc import AsyncGenerator
from typing import Protocol

from graphs.types import Completion, Delta, ModelInfo, ModelRequest


class Provider(Protocol):
    """One model behind one wire. A provider never retries: the gateway is the one layer that may."""

    @property
    def info(self) -> ModelInfo: ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`; an upper estimate where the model's tokenizer is not at hand."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        """Deltas in order, then exactly one Completion whose text is their concatenation.

        Cancelling the task or closing the generator closes the upstream at once. Raises UpstreamError or one of its
        kinds; a closed provider raises it too. Half an answer is an error, never a Completion.
        """
        ...

    async def close(self) -> None:
        """Give everything back; calls in flight fail. Closing twice is allowed."""
        ...
