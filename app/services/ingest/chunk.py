"""A document to the pieces that are searched and cited, by a chunker that each collection chooses, with its sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from app.services.ingest.document import ParsedDocument
from app.services.ingest.pieces import TARGET_TOKENS, Chunk, count_tokens
from app.services.ingest.structure import WHOLE_TOKENS, by_structure
from app.services.ingest.windows import OVERLAP_TOKENS, by_sentences, by_tokens
from graphs.errors import Invalid

__all__ = ["CHUNKERS", "TARGET_TOKENS", "WHOLE_TOKENS", "Chunk", "Chunker", "Chunking", "chunk", "count_tokens"]

Chunker = Callable[[ParsedDocument, int, int], list[Chunk]]
CHUNKERS: Final[Mapping[str, Chunker]] = {"structure": by_structure, "sentences": by_sentences, "tokens": by_tokens}
SIZES: Final = range(20, 2_001)


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut: by which chunker, into pieces of about how many tokens, of which so many come again in the
    next piece. Structure's pieces do not overlap."""

    chunker: str = "structure"
    size_tokens: int = TARGET_TOKENS
    overlap_tokens: int = 0

    @classmethod
    def checked(cls, chunker: str, size_tokens: int | None = None, overlap_tokens: int | None = None) -> Self:
        """What is None is as the chunker has it. Raises Invalid."""
        if chunker not in CHUNKERS:
            raise Invalid(f"there is no chunker {chunker}; there are {', '.join(CHUNKERS)}", field="chunker")
        size = TARGET_TOKENS if size_tokens is None else size_tokens
        if size not in SIZES:
            raise Invalid(f"a chunk has {SIZES[0]} to {SIZES[-1]:,} tokens, not {size}", field="size")
        if chunker == "structure":
            if overlap_tokens:
                raise Invalid("chunks by structure do not overlap", field="overlap")
            return cls(chunker, size)
        overlap = min(OVERLAP_TOKENS, size // 2) if overlap_tokens is None else overlap_tokens
        if not 0 <= overlap <= size // 2:
            raise Invalid(f"of {size} tokens 0 to {size // 2} may overlap, not {overlap}", field="overlap")
        return cls(chunker, size, overlap)

    @classmethod
    def parsed(cls, told: str) -> Self:
        """From what `str` gives; the default from nothing. Raises Invalid."""
        if not told:
            return cls()
        name, *sizes = told.split(" ")
        if len(sizes) != 2 or not all(size.isascii() and size.isdigit() for size in sizes):
            raise Invalid(f"{told} is no way to cut documents", field="chunker")
        return cls.checked(name, int(sizes[0]), int(sizes[1]))

    def __str__(self) -> str:
        """Empty for the default."""
        return "" if self == Chunking() else f"{self.chunker} {self.size_tokens} {self.overlap_tokens}"


def chunk(document: ParsedDocument, by: Chunking | None = None) -> list[Chunk]:
    """In order of their starts; of an empty document none."""
    by = by or Chunking()
    return CHUNKERS[by.chunker](document, by.size_tokens, by.overlap_tokens)
