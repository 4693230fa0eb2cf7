"""Any langchain-core embedding model as a provider; see `langchain` for what holds of both."""

import asyncio
from collections.abc import Sequence
from typing import Self

from langchain_core.embeddings import Embeddings as LangChainEmbedder

from app.config.schema import ModelConfig, ProviderConfig
from app.services.gateway.embedding import Embeddings, checked
from app.services.gateway.langchain import arguments, load_class
from app.services.gateway.langchain_errors import error_of
from app.services.gateway.provider import Embedded
from app.services.gateway.tokens import estimate_tokens
from graphs.errors import Invalid, UpstreamError
from graphs.types import ModelInfo, Usage


class LangChainEmbeddings(Embeddings):
    """One embedding model. Its usage is always an estimate: LangChain does not pass it on."""

    def __init__(
        self, info: ModelInfo, model: LangChainEmbedder, *, secret: str = "", dimensions: int | None = None
    ) -> None:
        super().__init__(info)
        self._model, self._secret, self._dimensions = model, secret, dimensions
        self._closed = False

    @classmethod
    def configured(cls, info: ModelInfo, place: ProviderConfig, model: ModelConfig, key: str) -> Self:
        """The class that `place.chat_model` names, made with its `arguments`. Raises Invalid."""
        made = load_class(place.chat_model or "", LangChainEmbedder)
        given = arguments(getattr(made, "model_fields", {}), place, model, key)
        try:
            embedder = made(**given)
        except Exception as error:  # of a vendor's constructor, which may raise anything it likes
            raise Invalid(f"{place.chat_model} cannot be made ({type(error).__name__})", field="chat_model") from error
        return cls(info, embedder, secret=key, dimensions=model.dimensions)

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(text)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        if self._closed:
            raise UpstreamError(f"{self.info.name} is closed")
        try:
            vectors = await self._model.aembed_documents(list(texts))
        except Exception as error:  # of any vendor's integration: nobody can list its classes
            told = error_of(self.info.name, error, self._secret)
            raise told from told.__cause__
        found = checked(self.info.name, vectors, len(texts), self._dimensions)
        read = await asyncio.to_thread(lambda: sum(map(estimate_tokens, texts)))
        return Embedded(found, self.info.name, Usage(read, estimated=True), self.info.version or self.info.name)

    async def close(self) -> None:
        self._closed = True
