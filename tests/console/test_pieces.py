"""The pure parts of the console: lines of a document, bars of a run, batches of a stream, advice, formats."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

import app.console
from app.console.advice import advice, advice_on
from app.console.lines import lines
from app.console.pace import paced
from app.console.passage import quoted
from app.console.turn import Turn
from app.console.view import draw, duration, pretty
from app.console.waterfall import waterfall
from app.records import CardVerdict, SpanRecord
from graphs import errors
from graphs.errors import Kind, PilothouseError
from tests.console.hostile import hostile_card

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.text(alphabet="ab` #-\n", max_size=80), st.integers(0, 80), st.integers(0, 80))
def test_what_is_marked_is_the_quote_but_for_hidden_signs(text: str, one: int, other: int) -> None:
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    marked = "".join(piece.text for line in lines(text, start, end) for piece in line.pieces if piece.marked)
    hidden = re.compile(r"[`#\s]")
    assert hidden.sub("", marked) == hidden.sub("", text[start:end])


def test_fences_are_hidden_and_what_stands_between_them_is_code() -> None:
    shown = [(line.kind, "".join(piece.text for piece in line.pieces)) for line in lines("Run\n```\nls `x`\n```\nDone")]
    assert shown == [("text", "Run"), ("code", "ls `x`"), ("text", "Done")]


def test_a_quote_is_found_again_where_the_document_moved_it() -> None:
    cited = hostile_card("0" * 32, "1" * 32).citations[0].model_copy(update={"quote": "kept", "start": 0, "end": 4})
    assert quoted(cited, "kept here") == (0, 4)
    assert quoted(cited, "now it is kept there") == (10, 14)
    assert quoted(cited, "rewritten") is None


def test_what_guards_changed_or_saw_stands_under_the_answer_by_name() -> None:
    verdicts = [
        {"guard": "patterns", "stage": "output", "action": "redact", "reasons": ["card_number"]},
        {"guard": "support", "stage": "output", "action": "flag", "reasons": ["<b>"]},
        {"guard": "rules", "stage": "output", "action": "allow", "reasons": ["passed_by"]},
    ]
    card = hostile_card("0" * 32, "1" * 32).model_copy(
        update={"verdicts": tuple(CardVerdict.model_validate(each) for each in verdicts)}
    )
    drawn = str(Turn("Why?", "rag", card=card).drawn_reply())
    assert 'title="The answer, by patterns">redacted: card number<' in drawn
    assert "flagged: &lt;b&gt;" in drawn
    assert "passed" not in drawn


def span(name: str, start_ms: float, end_ms: float, parent: str | None = None) -> SpanRecord:
    begun, ended = NOW + timedelta(milliseconds=start_ms), NOW + timedelta(milliseconds=end_ms)
    return SpanRecord(name, "r", parent, name, "station", begun, ended, "ok")


def test_bars_are_nested_and_lie_where_their_spans_were() -> None:
    fall = waterfall([span("child", 50, 100, "root"), span("root", 0, 100), span("deep", 75, 100, "child")])
    assert [(bar.span.name, bar.depth, bar.left, bar.width) for bar in fall.bars] == [
        ("root", 0, 0.0, 100.0),
        ("child", 1, 50.0, 50.0),
        ("deep", 2, 75.0, 25.0),
    ]


def test_waiting_for_a_person_takes_no_room_on_the_axis() -> None:
    hour_ms = 3_600_000
    fall = waterfall([span("before", 0, 100), span("after", hour_ms, hour_ms + 100)])
    assert fall.total_ms == pytest.approx(200)
    assert [bar.left for bar in fall.bars] == [0, 50]
    assert fall.bars[1].wait_ms == pytest.approx(hour_ms - 100)


def test_a_run_without_spans_has_an_empty_waterfall() -> None:
    assert waterfall([]).bars == []


async def test_a_stream_is_batched_without_losing_or_reordering_anything() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(50):
            yield number
            await asyncio.sleep(0)

    batches = [batch async for batch in paced(numbers(), frame_s=0.001)]
    assert [number for batch in batches for number in batch] == list(range(50))
    assert len(batches) < 50


async def test_an_error_of_a_stream_comes_after_what_it_gave() -> None:
    async def breaking() -> AsyncIterator[int]:
        yield 1
        raise errors.UpstreamError("broke off")

    got = []
    with pytest.raises(errors.UpstreamError):
        async for batch in paced(breaking(), frame_s=0):
            got += batch
    assert got == [1]


def test_every_kind_of_failure_comes_with_something_to_do() -> None:
    def tree(cls: type[PilothouseError]) -> list[type[PilothouseError]]:
        return [cls, *(item for child in cls.__subclasses__() for item in tree(child))]

    kinds = {cls.kind for cls in tree(PilothouseError)}
    assert kinds == set(get_args(Kind))
    for cls in tree(PilothouseError):
        # Some failures are made of more than a message; what a person is told depends on their kind and code alone.
        given = advice_on(
            type(cls.__name__, (PilothouseError,), {"kind": cls.kind, "code": cls.code})("it names the value")
        )
        assert given.title
        assert len(given.todo) > 20


def test_a_good_answer_needs_no_advice() -> None:
    assert advice(hostile_card("0" * 32, "1" * 32)) is None


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0.4, "0.40 ms"), (12.34, "12.3 ms"), (345.6, "346 ms"), (2_340, "2.3 s"), (65_000, "1 min 5 s")],
)
def test_durations_are_short(milliseconds: float, shown: str) -> None:
    assert duration(milliseconds) == shown


def test_a_long_value_is_cut_and_says_so() -> None:
    assert pretty("x" * 20_010).endswith("… 10 more characters")


def test_a_lone_surrogate_does_not_break_the_page() -> None:
    notice = advice_on(errors.Invalid("\ud800 <b>"))
    drawn = draw("unopened", run_id="", notice=notice)
    assert isinstance(drawn, Markup)
    assert "? &lt;b&gt;" in drawn


def test_only_the_panel_touches_gradios_html_component() -> None:
    # Gradio's HTML component runs what it is given; its Chatbot and Markdown fetch what a model names.
    folder = Path(app.console.__file__).parent
    used = {path.name for path in folder.glob("*.py") if re.search(r"gr\.(HTML|Markdown|Chatbot)\(", path.read_text())}
    assert used == {"panel.py"}


def test_no_template_lets_a_value_past_the_escaping() -> None:
    folder = Path(app.console.__file__).parent / "templates"
    past = re.compile(r"\|\s*safe\b|autoescape\s+false")
    assert [path.name for path in folder.glob("*.html") if past.search(path.read_text())] == []
