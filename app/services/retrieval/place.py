"""Where a collection lies: its tenant, its name, and the names of its tables."""

from dataclasses import dataclass
from functools import cached_property

from app.services.retrieval.table import table_name


@dataclass(frozen=True)
class Place:
    tenant_id: str
    collection: str

    @cached_property
    def base(self) -> str:
        return table_name(self.tenant_id, self.collection)

    @property
    def journal(self) -> str:
        return f"{self.base}_journal"

    def table(self, build: str) -> str:
        return f"{self.base}_{build}" if build else self.base
