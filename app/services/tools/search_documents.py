"""Search in the documents of the run's tenant."""

from collections.abc import Mapping
from typing import Any, ClassVar

from app.services.tools.tool import ToolCall, ToolOutput
from graphs.context import Retriever
from graphs.types import Passage, ToolSpec


class SearchDocuments:
    """The tenant is the retriever's, the collection and the filter are the run's; the model words the query alone."""

    spec: ClassVar[ToolSpec] = ToolSpec(
        name="search_documents",
        description="Search the documents and the handbook for passages that answer a question: concepts, how things "
        "work, configuration, procedures, runbooks, policies.",
        parameters={
            "type": "object",
            "properties": {
                "query": {
                    "type": "string",
                    "description": "What to look for, in the words that a document would use",
                    "minLength": 1,
                    "maxLength": 8_000,
                    "pattern": r"\S",
                }
            },
            "required": ["query"],
            "additionalProperties": False,
        },
        trust="operator",
        own=True,
        examples=(
            ("How do I rotate keys?", {"query": "rotate keys"}),
            ("What does the handbook say about a provider outage?", {"query": "provider outage"}),
            ("Which variable sets the upload limit?", {"query": "variable for the upload limit"}),
        ),
    )
    examples: ClassVar[tuple[str, ...]] = (
        "What does the handbook say about key rotation?",
        "How do I rebuild the index?",
        "What should I do when a provider is down?",
        "Which setting changes the port?",
        "Find the document about approvals.",
        "Explain how citations are chosen.",
        "Where is this documented?",
        "What does this setting do?",
        "What does our policy say?",
    )

    def __init__(
        self,
        retriever: Retriever,
        *,
        collection: str | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int = 6,
        rerank: str = "none",
    ) -> None:
        self._retriever, self._collection, self._where, self._limit = retriever, collection, where, limit
        self._rerank = rerank

    async def run(self, call: ToolCall) -> ToolOutput:
        found = await self._retriever.search(
            str(call.arguments["query"]),
            collection=self._collection,
            limit=self._limit,
            where=self._where,
            rerank=self._rerank,
        )
        text = "\n\n".join(_shown(number, passage) for number, passage in enumerate(found.passages, 1))
        return ToolOutput(text or "No passage was found.", found.passages, found.index_version)


def _shown(number: int, passage: Passage) -> str:
    head = f"{passage.title} > {passage.heading}" if passage.heading else passage.title
    return f"[{number}] {head}\n{passage.text}"
