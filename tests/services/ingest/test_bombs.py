"""Files made to take their reader down: each ends as the failure of that document, and the server goes on."""

import asyncio
import zlib
from collections.abc import Callable

import pytest

from app.services.ingest.apart import parse_apart
from app.services.ingest.parse import parse
from graphs.errors import DocumentUnreadable
from tests.services.ingest.office import W, archive, docx, paragraph, xlsx


def bomb_pdf() -> bytes:
    """A page whose few kilobytes of content unpack to 400 MiB."""
    drawn, packer = b"BT (x) Tj ET " * 4_096, zlib.compressobj(1)
    once = b"".join(packer.compress(drawn) for _ in range((400 << 20) // len(drawn))) + packer.flush()
    packed = zlib.compress(once, 9)
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n4 0 obj<</Length "
        + str(len(packed)).encode()
        + b"/Filter[/FlateDecode/FlateDecode]>>stream\n"
        + packed
        + b"\nendstream endobj\ntrailer<</Root 1 0 R>>\n"
    )


def laughing_docx() -> bytes:
    """Ten entities of ten entities of ...: three gigabytes of "lol"."""
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    head = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{entities}]>'
    return docx(paragraph("&l9;"), head=head)


def outside_docx() -> bytes:
    head = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY out SYSTEM "file:///etc/passwd">]>'
    return docx(paragraph("Seen. &out;"), head=head)


def swollen_docx() -> bytes:
    """A megabyte that unpacks to 300 MiB."""
    return archive({"word/document.xml": f"<w:document {W}/>".encode(), "word/media/x.bin": bytes(300 << 20)})


@pytest.mark.parametrize(
    ("made", "filename", "reason"),
    [
        (laughing_docx, "x.docx", "broken"),
        (swollen_docx, "x.docx", "unpacks to 300 MiB"),
        (lambda: docx("<w:p>" * 5_000), "x.docx", "broken"),
        (lambda: b"[" * 1_000_000, "x.json", "nested too deeply"),
        (lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "x.json", "nested too deeply"),
    ],
    ids=["entities", "zip", "deep docx", "deep json", "deep object"],
)
async def test_v07_a_bomb_is_the_failure_of_its_document_alone(
    made: Callable[[], bytes], filename: str, reason: str
) -> None:
    with pytest.raises(DocumentUnreadable, match=reason):
        await parse(made(), filename)


async def test_v07_a_pdf_that_swells_is_the_failure_of_its_document_alone() -> None:
    # Its own reader would give it 60 s; which limit it meets first is the machine's matter.
    with pytest.raises(DocumentUnreadable, match=r"broke|memory|nothing|computing|longer than 5 s"):
        await parse_apart("pdf", bomb_pdf(), wall_s=5)


async def test_v07_an_entity_of_a_document_reads_no_file() -> None:
    assert "root:" not in (await parse(outside_docx(), "x.docx")).text


async def test_v07_deep_html_is_killed_in_time_and_the_loop_goes_on() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.05)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(DocumentUnreadable, match="longer than 1 s"):
        await parse_apart("html", b"<div>" * 200_000 + b"x", wall_s=1)
    ticking.cancel()
    assert ticks > 2


async def test_v07_a_reader_that_dies_leaves_the_next_document_alone() -> None:
    """Two cells in opposite corners of a sheet, between which are seventeen thousand million."""
    far = '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    with pytest.raises(DocumentUnreadable, match="broke its reader, or needs more than 1024 MiB"):
        await parse(xlsx((1,), more=far), "x.xlsx")
    assert (await parse(b"a,b\n1,2\n", "x.csv")).text == "a | b\n1 | 2"
