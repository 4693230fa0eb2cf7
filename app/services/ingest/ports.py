"""What taking documents in needs of the services beside it, and what it hands them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.records import NewDocument
from app.services.ingest.chunk import Chunk
from app.sight import Sight
from graphs.types import Trust


class Record(Protocol):
    """What is known of a document that was taken in."""

    @property
    def tenant_id(self) -> str: ...
    @property
    def collection(self) -> str: ...
    @property
    def document_id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def media_type(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def chunks(self) -> int: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def allow_groups(self) -> Sequence[str]: ...
    @property
    def trust(self) -> Trust: ...
    @property
    def uploaded_by(self) -> str | None: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def updated_at(self) -> datetime: ...


class Documents(Protocol):
    """Where records and normalised texts are kept; `get`, `relabel` and `delete` raise Missing."""

    async def get(self, tenant_id: str, collection: str, document_id: str, sight: Sight) -> Record: ...

    async def held(self, tenant_id: str, collection: str, document_ids: Collection[str]) -> Mapping[str, Record]:
        """Those of them that are there, whoever may see them."""
        ...

    async def put(self, tenant_id: str, collection: str, new: Sequence[NewDocument]) -> Sequence[Record]:
        """All in one commit."""
        ...

    async def relabel(
        self, tenant_id: str, collection: str, document_id: str, allow_groups: Sequence[str], trust: Trust
    ) -> Record: ...

    async def delete(self, tenant_id: str, collection: str, document_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as it goes into the index, with its state's digest; `vectors` has shape (len(chunks), dimensions).

    `allow_groups` are those that see it, none for everyone.
    """

    document_id: str
    title: str
    metadata: Mapping[str, Any]
    chunks: Sequence[Chunk]
    state: str
    vectors: NDArray[np.float32]
    allow_groups: Sequence[str] = ()
    trust: Trust = "untrusted"


class Recipe(Protocol):
    """What a collection's rows are made by. `chunker` is what `Chunking` wrote."""

    @property
    def chunker(self) -> str: ...


R = TypeVar("R", bound=Recipe)


class Library(Protocol[R]):
    """The index. `replace`, `relabel` and `remove` are one commit each."""

    async def recipe(self, tenant_id: str, collection: str) -> R: ...

    async def embed(self, tenant_id: str, collection: str, recipe: R, texts: Sequence[str]) -> NDArray[np.float32]: ...

    async def replace(self, tenant_id: str, collection: str, entries: Sequence[Entry], recipe: R) -> bool:
        """False, and nothing is written, where the collection was made anew by another recipe meanwhile."""
        ...

    async def relabel(
        self, tenant_id: str, collection: str, document_id: str, allow_groups: Sequence[str], trust: Trust
    ) -> None: ...

    async def remove(self, tenant_id: str, collection: str, document_id: str) -> None: ...

    async def states(
        self, tenant_id: str, collection: str, document_ids: Collection[str]
    ) -> Mapping[str, Sequence[str]]: ...


Stage = Literal["parse", "chunk", "embed", "index"]
Happened = Literal["added", "replaced", "unchanged", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A document has passed a stage, or its ingest has ended: then `stage` is None and `happened` says how.

    `took_s` is the stage's wall time; documents that are embedded and committed together share it by their chunks.
    """

    document_id: str
    stage: Stage | None
    took_s: float = 0.0
    chunks: int = 0
    happened: Happened | None = None
    reason: str = ""


Report = Callable[[Progress], None]  # called in the event loop: it must not block
