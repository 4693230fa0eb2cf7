"""What the rows of a build are made by. Its table carries that, so that whoever writes or searches it goes by it."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from app.services.retrieval.commit import guarded

_KEY: Final = b"recipe"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The embedder by its name, empty for the embedded one; how documents are cut, in the ingest's own words, empty for
    its default."""

    embedder: str = ""
    chunker: str = ""


DEFAULT: Final = Recipe()


def written(recipe: Recipe) -> dict[bytes, bytes]:
    """As a table's metadata holds it; nothing for the default, which tables from before recipes have too."""
    return {} if recipe == DEFAULT else {_KEY: json.dumps(asdict(recipe)).encode()}


def read(layout: Any) -> Recipe:
    """The recipe of a table with this schema."""
    told = (layout.metadata or {}).get(_KEY)
    return DEFAULT if told is None else Recipe(**json.loads(told))


def made(layout: Any) -> str:
    """Embedder and layout that a table was made with; empty for one of an older version."""
    return str((layout.metadata or {}).get(b"made", b"").decode())


async def recipe_of(table: Any) -> Recipe:
    return read(await guarded(table.schema()))


def dimensions_of(layout: Any) -> int:
    return int(layout.field("vector").type.list_size)
