"""Embedding models of the operator's file as embedders of collections: each call is its tenant's, and in the ledger."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import numpy as np

from app.config.schema import Config, ModelConfig
from app.records import Payer
from app.services.gateway.gateway import ModelGateway
from app.services.retrieval.embedder import Embedder, Vectors
from graphs.errors import Conflict, Invalid, UpstreamError

FEATURE: Final = "retrieval"
BATCH: Final = 64  # texts of one call: servers bound it, and the first of many a search waits behind
REMEMBERED: Final = 512  # single texts are questions, and come again


class ModelEmbedder:
    """An embedding model of the gateway, for one tenant. Vectors are scaled to length 1, whatever the model gives.

    Texts are passages unless `embed_questions` gets them; each has before it what the model was trained to read there.
    """

    def __init__(
        self,
        gateway: ModelGateway,
        name: str,
        model: ModelConfig,
        embedder_id: str,
        dimensions: int,
        tenant_id: str,
        remembered: OrderedDict[tuple[str, str], Vectors],
    ) -> None:
        self.id, self.dimensions = embedder_id, dimensions
        self._gateway, self._name, self._model, self._remembered = gateway, name, model, remembered
        self._payer = Payer(tenant_id, "", feature=FEATURE)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Raises Conflict for vectors of another length than the collection's, and what the gateway does."""
        return await self._vectors([self._model.passage_prefix + text for text in texts])

    async def embed_questions(self, texts: Sequence[str]) -> Vectors:
        """Raises what `embed` does."""
        return await self._vectors([self._model.query_prefix + text for text in texts])

    async def _vectors(self, texts: Sequence[str]) -> Vectors:
        if len(texts) != 1:
            return await self._embed(texts)
        key = (self.id, texts[0])
        if (known := self._remembered.get(key)) is None:
            known = self._remembered[key] = await self._embed(texts)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(key)
        return known.copy()

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for first in range(0, len(texts), BATCH):
            some = [text or " " for text in texts[first : first + BATCH]]  # servers refuse an empty text
            told = np.asarray((await self._gateway.embed(some, self._name, self._payer)).vectors, np.float32)
            if told.shape[1] != self.dimensions:
                raise Conflict(f"{self._name} gives {told.shape[1]} dimensions, the collection has {self.dimensions}")
            lengths = np.linalg.norm(told, axis=1, keepdims=True)
            if not lengths.all():
                raise UpstreamError(f"{self._name} gave a vector that points nowhere")
            vectors[first : first + BATCH] = told / lengths
        return vectors


class FileEmbedders:
    """The embedding models that the file names. Implements retrieval's port `Others`."""

    def __init__(self, config: Config, gateway: ModelGateway) -> None:
        self._config, self._gateway = config, gateway
        self._dimensions: dict[str, int] = {}
        self._remembered: OrderedDict[tuple[str, str], Vectors] = OrderedDict()

    def id_of(self, name: str) -> str | None:
        """Of name, model, weights and prefixes, as far as they can be told; a model that is changed has another one."""
        model, target = self._config.models.get(name), self._gateway.router.targets.get(name)
        if model is None or target is None or model.kind != "embedding":
            return None
        told = f"{name}: {target.info.version or model.model}"
        if model.dimensions is not None:
            told += f", {model.dimensions} dimensions"
        if any(prefixes := (model.query_prefix, model.passage_prefix)):
            told += f", prefixes {sha256(json.dumps(prefixes).encode()).hexdigest()[:8]}"
        return told

    async def named(self, name: str, tenant_id: str, dimensions: int | None) -> Embedder:
        """Raises Invalid for a name that is no embedding model's, and for a new table what asking the model does."""
        embedder_id = self.id_of(name)
        if embedder_id is None:
            raise Invalid(f"there is no embedding model {name}", field="embedder")
        found = dimensions or self._dimensions.get(name) or await self._asked(name, tenant_id)
        model = self._config.models[name]
        return ModelEmbedder(self._gateway, name, model, embedder_id, found, tenant_id, self._remembered)

    async def _asked(self, name: str, tenant_id: str) -> int:
        """How long its vectors are, from one of them: a file that says so may be wrong."""
        told = await self._gateway.embed(["dimensions"], name, Payer(tenant_id, "", feature=FEATURE))
        self._dimensions[name] = len(told.vectors[0])
        return self._dimensions[name]
