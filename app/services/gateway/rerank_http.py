"""Re-ranking over `/rerank`, as Cohere, Jina, vLLM and infinity speak it, or as text-embeddings-inference does."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from app.services.gateway.connection import Deadline
from app.services.gateway.link import page, refusal
from app.services.gateway.openai import bearer
from app.services.gateway.provider import Reranked
from app.services.gateway.rerank import Rerankers, placed
from app.services.gateway.server import ModelServer
from app.services.gateway.tokens import estimate_tokens
from app.services.gateway.upstream import failure
from app.services.gateway.wire import count_of, dump
from graphs.errors import UpstreamError
from graphs.types import ModelInfo, Usage

_MAX_ROW_BYTES: Final = 64_000  # some servers send the text back although nobody asked


class HttpReranker(Rerankers):
    """One re-rank model of a server, which is asked at `/rerank` under its base URL.

    `tei`: the server calls the documents `texts`, as text-embeddings-inference does, and serves one model alone.
    """

    def __init__(
        self,
        info: ModelInfo,
        server: ModelServer,
        *,
        served_name: str | None = None,
        tei: bool = False,
        count: Callable[[str], int] = estimate_tokens,
    ) -> None:
        super().__init__(info)
        self._server, self._served_name, self._tei, self._count = server, served_name or info.name, tei, count
        self._link = server.link(info.name, server.url + "/rerank", bearer(server.api_key))

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    async def rerank(self, question: str, texts: Sequence[str]) -> Reranked:
        until = asyncio.get_running_loop().time() + self._server.timeouts.total_s
        name = self.info.name

        def deadline() -> Deadline:
            return Deadline(until, f"{name} took too long to re-rank")

        with await self._link.post(dump(self._body(question, texts)), deadline()) as response:
            if response.status != 200:
                raise await refusal(name, response, self._server.api_key, lambda: page(name, response, deadline))
            whole = await page(name, response, deadline, (1 << 20) + len(texts) * _MAX_ROW_BYTES)
        return self._read(whole, question, texts)

    def _body(self, question: str, texts: Sequence[str]) -> dict[str, Any]:
        if self._tei:
            return {"query": question, "texts": list(texts), "truncate": True}
        return {"model": self._served_name, "query": question, "documents": list(texts), "top_n": len(texts)}

    def _read(self, whole: bytes, question: str, texts: Sequence[str]) -> Reranked:
        try:
            said = orjson.loads(whole)
        except orjson.JSONDecodeError as error:  # NaN too, by which nothing can be ordered
            raise UpstreamError(f"{self.info.name} answered with something that is not JSON") from error
        told = said if isinstance(said, dict) else {"results": said}
        if (failed := told.get("error")) is not None:
            raise failure(self.info.name, 200, failed, secret=self._server.api_key)
        results = told.get("results")
        rows = [row if isinstance(row, dict) else {} for row in results] if isinstance(results, list) else []
        scores = placed(
            self.info.name,
            [(row.get("index"), row.get("relevance_score", row.get("score"))) for row in rows],
            len(texts),
        )
        return Reranked(scores, self.info.name, self._usage(told.get("usage"), question, texts), self.info.version)

    def _usage(self, told: Any, question: str, texts: Sequence[str]) -> Usage:
        """Tokens as the server counts them, where it does: the question is read once with each text."""
        fields = told if isinstance(told, dict) else {}
        for field in ("total_tokens", "prompt_tokens"):
            if (read := count_of(fields.get(field))) is not None:
                return Usage(read)
        read = sum(map(self._count, texts)) + len(texts) * self._count(question)
        return Usage(read, estimated=True)

    async def close(self) -> None:
        await self._link.close()
