"""The stations of a run as bars on one time axis.

A run that waited for a person has one leg before and one after: the axis shows the time that was worked, and the wait
as a line between the legs, because hours of waiting would squeeze every bar to nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.records import SpanRecord

_INPUT_KEYS: Final = ("input", "inputs", "messages", "query", "arguments")
_OUTPUT_KEYS: Final = ("output", "outputs", "text", "result", "passages", "error")


@dataclass(frozen=True, slots=True)
class Bar:
    """One span. `left` and `width` are percent of the axis; `wait_ms` is the pause before this leg of the run."""

    span: SpanRecord
    depth: int
    left: float
    width: float
    duration_ms: float
    offset_ms: float
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    facts: Mapping[str, Any]
    wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Waterfall:
    bars: Sequence[Bar]
    total_ms: float
    ticks_ms: Sequence[float]


def waterfall(spans: Sequence[SpanRecord]) -> Waterfall:
    """Parents before their children, siblings by start; a span whose parent is not there counts as a root."""
    known = {span.span_id for span in spans}
    children: dict[str | None, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda span: (span.started_at, span.span_id)):
        parent = span.parent_id if span.parent_id in known else None
        children.setdefault(parent, []).append(span)
    placed: list[tuple[SpanRecord, int, float, float]] = []
    worked_ms, previous_end = 0.0, None
    for root in children.get(None, []):
        wait_ms = 0.0
        if previous_end is not None:
            gap = _ms(previous_end, root.started_at)
            if gap < 0:  # overlapping roots share the axis
                worked_ms += gap
            else:
                wait_ms = gap
        tree = _walk(root, children)
        placed += [
            (span, depth, worked_ms + _ms(root.started_at, span.started_at), wait_ms if span is root else 0.0)
            for span, depth in tree
        ]
        end = max(span.ended_at for span, _ in tree)
        worked_ms += _ms(root.started_at, end)
        previous_end = end if previous_end is None else max(previous_end, end)
    total_ms = max(worked_ms, 0.001)
    return Waterfall(
        bars=[_bar(span, depth, offset, wait, total_ms) for span, depth, offset, wait in placed],
        total_ms=total_ms,
        ticks_ms=[total_ms * quarter / 4 for quarter in range(5)],
    )


def _walk(span: SpanRecord, children: Mapping[str | None, Sequence[SpanRecord]]) -> list[tuple[SpanRecord, int]]:
    found: list[tuple[SpanRecord, int]] = []
    stack = [(span, 0)]
    while stack:
        current, depth = stack.pop()
        found.append((current, depth))
        stack += [(child, depth + 1) for child in reversed(children.get(current.span_id, ()))]
    return found


def _bar(span: SpanRecord, depth: int, offset_ms: float, wait_ms: float, total_ms: float) -> Bar:
    duration_ms = _ms(span.started_at, span.ended_at)
    left = min(100 * offset_ms / total_ms, 100)
    return Bar(
        span=span,
        depth=depth,
        left=round(left, 3),
        width=round(min(100 * duration_ms / total_ms, 100 - left), 3),
        duration_ms=duration_ms,
        offset_ms=offset_ms,
        inputs={key: span.attributes[key] for key in _INPUT_KEYS if key in span.attributes},
        outputs={key: span.attributes[key] for key in _OUTPUT_KEYS if key in span.attributes},
        facts={
            key: value
            for key, value in span.attributes.items()
            if key not in _INPUT_KEYS and key not in _OUTPUT_KEYS and value not in ("", None)
        },
        wait_ms=wait_ms,
    )


def _ms(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() * 1_000
