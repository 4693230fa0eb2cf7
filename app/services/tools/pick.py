"""Finds the tool that fits a question, for models that cannot ask for one themselves."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.services.tools.tool import Tool
from graphs.types import ToolSpec

# Chosen on the even half of BFCL, reported on the odd one; see benchmarks/pick_tool.py.
THRESHOLD = 0.40


class Embedder(Protocol):
    """Texts as L2-normalised float32 rows, shape (texts, dimensions)."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class ToolPicker:
    """Ranks tools by the likeness of a question to their description or to one of their example questions.

    The score is a cosine in [-1, 1]. Tools' texts are embedded once for the life of the picker.
    """

    def __init__(self, embedder: Embedder, *, threshold: float = THRESHOLD) -> None:
        self._embedder = embedder
        self._threshold = threshold
        self._known: dict[tuple[str, ...], NDArray[np.float32]] = {}
        self._learning = asyncio.Lock()

    async def rank(self, question: str, tools: Iterable[Tool]) -> tuple[tuple[ToolSpec, float], ...]:
        """Tools at or above the threshold, best first; ties keep the order given."""
        scored = [(spec, score) for spec, score in await self.scores(question, tools) if score >= self._threshold]
        return tuple(sorted(scored, key=lambda pair: -pair[1]))

    async def scores(self, question: str, tools: Iterable[Tool]) -> list[tuple[ToolSpec, float]]:
        """Every tool with its score, in the order given."""
        tools = list(tools)
        (asked,) = await self._embedder.embed([question])
        return [(tool.spec, float((await self._texts_of(tool) @ asked).max())) for tool in tools]

    async def _texts_of(self, tool: Tool) -> NDArray[np.float32]:
        texts = (described(tool.spec), *tool.examples)
        async with self._learning:
            if texts not in self._known:
                self._known[texts] = await self._embedder.embed(texts)
        return self._known[texts]


def described(spec: ToolSpec) -> str:
    """A tool in one text: its name in words, what it does, what it wants to know."""
    name = spec.name.replace("_", " ").replace(".", " ")
    properties: dict[str, Any] = spec.parameters.get("properties", {})
    wants = ", ".join(properties)
    return f"{name}: {spec.description} ({wants})" if wants else f"{name}: {spec.description}"
