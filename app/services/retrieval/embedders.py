"""The embedders that collections may be made by: the embedded one under the empty name, and those of the operator."""

from typing import Protocol

from app.services.retrieval.embedder import Embedder
from graphs.errors import Invalid


class Others(Protocol):
    """Embedders beside the embedded one, by their names."""

    def id_of(self, name: str) -> str | None:
        """None for a name that is not to be had here."""
        ...

    async def named(self, name: str, tenant_id: str, dimensions: int | None) -> Embedder:
        """Bound to the tenant that pays for it. `dimensions` are those of the table it is for, None for a new one.

        Raises Invalid for an unknown name.
        """
        ...


class Embedders:
    """Those of a process. Without any, tables can be looked at and not written."""

    def __init__(self, embedded: Embedder | None = None, others: Others | None = None) -> None:
        self._embedded, self._others = embedded, others

    def id_of(self, name: str) -> str | None:
        if not name:
            return None if self._embedded is None else self._embedded.id
        return None if self._others is None else self._others.id_of(name)

    async def named(self, name: str, tenant_id: str, dimensions: int | None = None) -> Embedder:
        """Raises Invalid for a name that is not to be had here."""
        if not name and self._embedded is not None:
            return self._embedded
        if self._others is None:
            raise Invalid(f"there is no embedder {name}", field="embedder")
        return await self._others.named(name, tenant_id, dimensions)
