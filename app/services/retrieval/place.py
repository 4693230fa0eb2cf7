"""Where a collection lies: its tenant, its name, and the names of its tables."""

from dataclasses import dataclass

from app.services.retrieval.table import table_name


@dataclass(frozen=True, slots=True)
class Place:
    """`base` follows from the names; whoever goes through all tables knows it alone and leaves the names empty."""

    tenant_id: str
    collection: str
    base: str = ""

    def __post_init__(self) -> None:
        if not self.base:
            object.__setattr__(self, "base", table_name(self.tenant_id, self.collection))

    @property
    def journal(self) -> str:
        return f"{self.base}_journal"

    def table(self, build: str) -> str:
        return f"{self.base}_{build}" if build else self.base

    def __str__(self) -> str:
        return self.collection or self.base
