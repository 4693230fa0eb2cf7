"""What this process has found broken, until it is mended: for health, for maintenance, and to fail fast."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from app.services.retrieval.place import Place

Part = Literal["index", "rows"]


@dataclass(frozen=True, slots=True)
class Damage:
    """`index`: searched without it until it is built anew. `rows`: the collection is refused at this version."""

    place: Place
    part: Part
    build: str
    version: int
    found_at: datetime


class DamageReport:
    """Damage by collection. `found` is set whenever there is some to mend."""

    def __init__(self) -> None:
        self._damages: dict[str, Damage] = {}
        self.found = asyncio.Event()

    @property
    def damages(self) -> tuple[Damage, ...]:
        return tuple(self._damages.values())

    def of(self, place: Place) -> Damage | None:
        return self._damages.get(place.base)

    def note(self, place: Place, part: Part, build: str, version: int) -> None:
        self._damages[place.base] = Damage(place, part, build, version, datetime.now(UTC))
        self.found.set()

    def mended(self, place: Place) -> None:
        self._damages.pop(place.base, None)
