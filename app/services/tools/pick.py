"""Finds the tool that fits a question, for models that cannot ask for one themselves."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from app.services.tools.tool import Tool
from graphs.types import ToolSpec

# Measured with benchmarks/pick_tool.py: a description alone has to be closer than one among example questions.
THRESHOLD = 0.44
THRESHOLD_WITH_EXAMPLES = 0.34

# What people say that no tool is for. A question closer to one of these than to any tool needs none.
CHATTER = (
    "Hello!",
    "Good morning, how are you?",
    "Thank you, that helped.",
    "Who are you and what can you do?",
    "What is your name?",
    "Tell me a funny story.",
    "Write a poem about the sea.",
    "Write a letter to my friend.",
    "Translate this sentence into French.",
    "I am happy.",
    "I had a bad day and I am tired.",
    "What is your opinion about music?",
    "Recommend a book to read.",
    "Suggest a name for my cat.",
    "Okay.",
    "Goodbye!",
)

# "Open a ticket: the index rebuild fails": what is wanted stands before the colon, what it is about behind it.
_ORDER: Final = re.compile(r"\s*([^:?\n]{3,60}):\s")
_QUESTION: Final = re.compile(
    r"\s*(?:(?:and|so|but|hi|hello)\b[\s,]*)*"
    r"(?:what|which|who|whom|whose|where|when|why|how|is|are|was|were|do|does|did|has|have)\b",
    re.IGNORECASE,
)


class Embedder(Protocol):
    """Texts as L2-normalised float32 rows, shape (texts, dimensions)."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class ToolPicker:
    """Ranks tools by the likeness of a question to their description or to one of their example questions.

    The score is a cosine in [-1, 1]. What is neither near a tool nor chatter goes to the tool named `fallback`, where
    that is granted: the subject of a search can be anything, so no example comes near. Who asks a question wants
    nothing changed: tools that write are for orders. Tools' texts are embedded once for the life of the picker.
    """

    def __init__(self, embedder: Embedder, *, fallback: str | None = None) -> None:
        self._embedder = embedder
        self._fallback = fallback
        self._known: dict[tuple[str, ...], NDArray[np.float32]] = {}
        self._learning = asyncio.Lock()

    async def rank(self, question: str, tools: Iterable[Tool]) -> tuple[tuple[ToolSpec, float], ...]:
        """Tools that fit, best first; ties keep the order given. Empty for what needs no tool."""
        asking = _QUESTION.match(question) is not None
        tools = [tool for tool in tools if not (asking and tool.spec.risk == "write")]
        order = _ORDER.match(question)
        (asked,) = await self._embedder.embed([order[1] if order else question])
        scored = [(tool, float((await self._learnt(_texts(tool)) @ asked).max())) for tool in tools]
        fitting = [(tool.spec, score) for tool, score in scored if score >= _threshold(tool)]
        chatter = float((await self._learnt(CHATTER) @ asked).max())
        if any(score > chatter for _, score in fitting):
            return tuple(sorted(fitting, key=lambda pair: -pair[1]))
        if chatter >= THRESHOLD_WITH_EXAMPLES:
            return ()
        return tuple((tool.spec, score) for tool, score in scored if tool.spec.name == self._fallback)

    async def _learnt(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        async with self._learning:
            if texts not in self._known:
                self._known[texts] = await self._embedder.embed(texts)
        return self._known[texts]


def _threshold(tool: Tool) -> float:
    return THRESHOLD_WITH_EXAMPLES if tool.examples else THRESHOLD


def _texts(tool: Tool) -> tuple[str, ...]:
    # Name in words and what it does; naming the parameters too found fewer right tools (BFCL: 0.83 for 0.90).
    name = tool.spec.name.replace("_", " ").replace(".", " ")
    return (f"{name}: {tool.spec.description}", *tool.examples)
