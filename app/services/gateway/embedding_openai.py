"""Vectors over OpenAI's `/embeddings`: OpenAI itself, vLLM, Ollama, llama.cpp and others."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from app.services.gateway.connection import Deadline
from app.services.gateway.embedding import Embeddings, Vectors, checked
from app.services.gateway.link import page, refusal
from app.services.gateway.openai import bearer
from app.services.gateway.provider import Embedded
from app.services.gateway.server import ModelServer
from app.services.gateway.tokens import estimate_tokens
from app.services.gateway.upstream import failure
from app.services.gateway.wire import count_of, dump
from graphs.errors import UpstreamError
from graphs.types import ModelInfo, Usage

_MAX_VECTOR_BYTES: Final = 8_192 * 24  # the largest models have 8,192 dimensions; a number takes 24 bytes at most


class OpenAiEmbeddings(Embeddings):
    """One embedding model of an OpenAI-compatible server, whose base URL includes its /v1.

    `dimensions` are asked of the server, which may not know the parameter, and held against what comes.
    """

    def __init__(
        self,
        info: ModelInfo,
        server: ModelServer,
        *,
        served_name: str | None = None,
        dimensions: int | None = None,
        count: Callable[[str], int] = estimate_tokens,
    ) -> None:
        super().__init__(info)
        self._server, self._served_name, self._dimensions = server, served_name or info.name, dimensions
        self._count = count
        self._link = server.link(info.name, server.url + "/embeddings", bearer(server.api_key))

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        until = asyncio.get_running_loop().time() + self._server.timeouts.total_s

        def deadline() -> Deadline:
            return Deadline(until, f"{self.info.name} took too long for its vectors")

        payload = dump({"model": self._served_name, "input": list(texts), "dimensions": self._dimensions})
        with await self._link.post(payload, deadline()) as response:
            if response.status != 200:
                raise await refusal(
                    self.info.name, response, self._server.api_key, lambda: page(self.info.name, response, deadline)
                )
            whole = await page(self.info.name, response, deadline, (1 << 20) + len(texts) * _MAX_VECTOR_BYTES)
        # In a thread: the vectors of a large batch are tens of megabytes of JSON.
        return await asyncio.to_thread(self._read, whole, texts)

    def _read(self, whole: bytes, texts: Sequence[str]) -> Embedded:
        try:
            said = orjson.loads(whole)
        except orjson.JSONDecodeError as error:  # NaN too, which is no number of a vector
            raise UpstreamError(f"{self.info.name} answered with something that is not JSON") from error
        said = said if isinstance(said, dict) else {}
        if (failed := said.get("error")) is not None:
            raise failure(self.info.name, 200, failed, secret=self._server.api_key)
        vectors = self._vectors(said.get("data"), len(texts))
        usage = said.get("usage")
        read = count_of(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
        spent = Usage(sum(map(self._count, texts)), estimated=True) if read is None else Usage(read)
        served = said.get("model")
        version = self.info.version or (served if isinstance(served, str) else "")
        return Embedded(vectors, self.info.name, spent, version)

    def _vectors(self, rows: Any, texts: int) -> Vectors:
        """In the order of the texts, whatever the order in which they came."""
        found: dict[int, list[Any]] = {}
        for place, row in enumerate(rows if isinstance(rows, list) else ()):
            index, vector = (row.get("index", place), row.get("embedding")) if isinstance(row, dict) else (None, None)
            if isinstance(index, int) and 0 <= index < texts and isinstance(vector, list):
                found[index] = vector
        return checked(self.info.name, [found[index] for index in sorted(found)], texts, self._dimensions)

    async def close(self) -> None:
        await self._link.close()
