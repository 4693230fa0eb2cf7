"""Presentations: the text, tables, charts and notes of each slide. Runs in the child process."""

from collections.abc import Iterator, Sequence
from typing import Any

from app.services.ingest.archive import checked_archive
from app.services.ingest.detect import MEDIA_TYPES
from app.services.ingest.document import Builder, ParsedDocument, Place, true_title
from app.services.ingest.table import put_rows
from graphs.errors import DocumentUnreadable

LIMIT_SLIDES = 5_000
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"


def parse_pptx(data: bytes) -> ParsedDocument:
    """A slide is a heading, "slide 2" and its title. Hidden slides are left out and noted."""
    from pptx import Presentation  # its lxml resolves no entities
    from pptx.exc import PythonPptxError

    try:
        deck = Presentation(checked_archive(data))
        title = true_title(deck.core_properties.title or "")
        builder, notes = Builder(title), list[str]()
        for number, slide in enumerate(deck.slides, 1):
            if number > LIMIT_SLIDES:
                raise DocumentUnreadable(f"the presentation has more than {LIMIT_SLIDES} slides", field="file")
            if slide.element.get("show") in {"0", "false"}:
                notes.append(f"the hidden slide {number} is left out")
                continue
            _read(builder, slide, Place(slide=number))
    except (PythonPptxError, SyntaxError, KeyError, ValueError, AttributeError) as error:  # lxml's are SyntaxErrors
        raise DocumentUnreadable("the presentation is broken", field="file") from error
    return builder.build(title, MEDIA_TYPES["pptx"], tuple(notes))


def _read(builder: Builder, slide: Any, place: Place) -> None:
    builder.heading(1, f"slide {place.slide}", shown=False)
    named = slide.shapes.title
    if named is not None and named.has_text_frame and named.text_frame.text.strip():
        builder.heading(2, " ".join(named.text_frame.text.split()))
    for shape in _shapes(slide.shapes):
        if named is not None and shape.shape_id == named.shape_id:
            continue
        if shape.has_text_frame:
            builder.block(shape.text_frame.text, place=place)
        elif getattr(shape, "has_table", False):
            put_rows(builder, ([cell.text for cell in row.cells] for row in shape.table.rows), place)
        elif getattr(shape, "has_chart", False):
            put_rows(builder, _chart(shape.chart), place)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        builder.block(slide.notes_slide.notes_text_frame.text, place=place)


def _shapes(shapes: Any) -> Iterator[Any]:
    """Those inside groups too, in order; without recursion, since nesting has no limit."""
    waiting = list(reversed(list(shapes)))
    while waiting:
        shape = waiting.pop()
        if hasattr(shape, "shapes"):
            waiting.extend(reversed(list(shape.shapes)))
        else:
            yield shape


def _chart(chart: Any) -> Iterator[list[str]]:
    """Its title, then a row for each series: the name and, for each category, the value. Of any kind of chart."""
    if chart.has_title and chart.chart_title.has_text_frame:
        yield [chart.chart_title.text_frame.text]
    for series in chart.element.iter(f"{_CHART}ser"):
        name, categories, values = (_points(series, tags) for tags in (("tx",), ("cat", "xVal"), ("val", "yVal")))
        yield [*name.values(), *(f"{categories.get(place, place)}: {value}" for place, value in values.items())]


def _points(series: Any, tags: Sequence[str]) -> dict[str, str]:
    """What the chart keeps of its workbook, by its place there."""
    held = (element for tag in tags for element in series.findall(f"{_CHART}{tag}"))
    return {
        value.getparent().get("idx", ""): value.text or "" for element in held for value in element.iter(f"{_CHART}v")
    }
