"""How a collection is made anew: the form that asks for it, and a build's cutting in words."""

import re
from typing import Final

import gradio as gr
from markupsafe import Markup

from app.console.panel import said
from app.console.view import draw
from app.services.ingest.chunk import SIZES, Chunking
from graphs.errors import Invalid

CHUNKERS: Final = {
    "structure": "By structure: headings, paragraphs, tables",
    "sentences": "By sentences",
    "tokens": "By tokens alone",
}


def cut(chunker: str) -> str:
    """How the documents of a build are cut, from what its recipe holds."""
    by = Chunking.parsed(chunker)
    again = f", {by.overlap_tokens} again" if by.overlap_tokens else ""
    return f"{by.chunker}, {by.size_tokens} tokens{again}"


def drawn_form(collection: str, chunker: str, *, waits: bool) -> Markup:
    """`chunker` is that of the build that answers; `waits` says that a build would be dropped for the new one."""
    return draw(
        "rebuilding",
        collection=collection,
        now=cut(chunker),
        chunkers=CHUNKERS,
        sizes=SIZES,
        waits=waits,
    )


def wished(event: gr.EventData) -> tuple[Chunking | None, bool]:
    """How to cut, None for as it is, and whether the build is to wait whatever the gate says. Raises Invalid."""
    chunker, keep = said(event, "chunker"), said(event, "keep") == "on"
    if not chunker:
        return None, keep
    overlap = None if chunker == "structure" else _tokens(event, "overlap")  # its field is not shown then
    return Chunking.checked(chunker, _tokens(event, "size"), overlap), keep


def _tokens(event: gr.EventData, field: str) -> int | None:
    written = said(event, field).strip()
    if not written:
        return None
    if re.fullmatch(r"[0-9]{1,6}", written) is None:
        raise Invalid(f"{field} is a number of tokens", field=field)
    return int(written)
