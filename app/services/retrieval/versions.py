"""Names of what a search can be asked "as of": `collection@number`, or `collection@build.number` after a rebuild."""

import re
from dataclasses import dataclass
from datetime import datetime

from app.services.retrieval.recipe import Recipe
from graphs.errors import Missing

_LABEL = re.compile(r"(?P<collection>[^@]{1,128})@(?:(?P<build>[0-9a-f]{8})\.)?(?P<number>[1-9][0-9]{0,17})")


class VersionGone(Missing):
    """The version existed; it was cleaned up, or it held text that was erased since. HTTP 410."""

    code = "version_gone"


@dataclass(frozen=True, slots=True)
class Version:
    """A state of a collection that can be searched."""

    label: str
    rows: int
    size_bytes: int
    committed_at: datetime
    live: bool
    recipe: Recipe


def label(collection: str, build: str, number: int) -> str:
    return f"{collection}@{build}.{number}" if build else f"{collection}@{number}"


def parsed(text: str, collection: str) -> tuple[str, int]:
    """Build and number. Raises Missing for what is no version of this collection."""
    match = _LABEL.fullmatch(text)
    if match is None or match["collection"] != collection:
        raise Missing(f"collection {collection} has no such version")
    return match["build"] or "", int(match["number"])
