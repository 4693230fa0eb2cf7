"""What a run has read, and whom each text is from."""

from collections.abc import Sequence
from dataclasses import dataclass

from graphs.types import SourceKind, Trust


@dataclass(frozen=True, slots=True)
class Source:
    """One text that a run has read. `name` is the document, tool or message it comes from."""

    kind: SourceKind
    name: str
    trust: Trust
    text: str


class Reading:
    """All that a run has read so far."""

    def __init__(self, sources: Sequence[Source] = ()) -> None:
        self.sources = tuple(sources)
