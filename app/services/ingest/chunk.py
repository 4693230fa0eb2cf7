"""A document to the pieces that are searched and cited, about 200 tokens each, by a chunker that is chosen by name."""

from collections.abc import Callable, Mapping
from typing import Final

from app.services.ingest.document import ParsedDocument
from app.services.ingest.pieces import TARGET_TOKENS, Chunk, count_tokens
from app.services.ingest.structure import WHOLE_TOKENS, by_structure
from app.services.ingest.windows import by_sentences, by_tokens
from graphs.errors import Invalid

__all__ = ["CHUNKERS", "TARGET_TOKENS", "WHOLE_TOKENS", "Chunk", "Chunker", "chunk", "chunker", "count_tokens"]

Chunker = Callable[[ParsedDocument], list[Chunk]]
CHUNKERS: Final[Mapping[str, Chunker]] = {"structure": by_structure, "sentences": by_sentences, "tokens": by_tokens}


def chunker(name: str) -> Chunker:
    """Raises Invalid."""
    if name not in CHUNKERS:
        raise Invalid(f"there is no chunker {name}; there are {', '.join(CHUNKERS)}", field="chunker")
    return CHUNKERS[name]


def chunk(document: ParsedDocument, by: str = "structure") -> list[Chunk]:
    """In order of their starts; of an empty document none. Raises Invalid for an unknown chunker."""
    return chunker(by)(document)
