"""Records the spans of one run in memory.

Writing them away is the runner's business (with the run's row, in one transaction) and MLflow's copy is the
exporter's. Recording never fails a run: a value that cannot be read becomes a note of that in its place.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from app.ids import new_id
from app.records import CardStation, SpanRecord
from app.telemetry.faults import told
from app.telemetry.safe import safe_items
from graphs.errors import PilothouseError

Status = Literal["ok", "error", "interrupted"]


class RecordedSpan:
    """An open span; `set` adds or replaces attributes until it ends."""

    __slots__ = ("attributes", "ended", "kind", "name", "parent", "span_id", "started_ns", "trace")

    def __init__(self, trace: "RunTrace", name: str, kind: str, parent: "RecordedSpan | None", started_ns: int) -> None:
        self.trace, self.name, self.kind, self.parent, self.started_ns = trace, name, kind, parent, started_ns
        self.span_id = new_id()[:16]  # the 8 bytes of an OpenTelemetry span id
        self.attributes: dict[str, Any] = {}
        self.ended = False

    def set(self, **attributes: Any) -> None:
        self.attributes.update(safe_items(attributes))


_current: ContextVar[RecordedSpan | None] = ContextVar("pilothouse_span", default=None)


class RunTrace:
    """The spans of one run, or of one leg of it: a resumed run gets a new RunTrace under the same run id.

    Times are read from a monotonic clock and laid on one wall-clock reading, so that a clock step cannot turn a
    duration negative. A span's parent is the innermost open span of the task it starts in, or of the task that
    created that task; failing that, the root.
    """

    def __init__(
        self,
        run_id: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.run_id = run_id
        self._monotonic_ns = monotonic_ns
        self._started_at = clock()
        self._started_ns = monotonic_ns()
        self._root: RecordedSpan | None = None
        self._records: list[SpanRecord] = []

    @contextmanager
    def root(self, name: str, **attributes: Any) -> Iterator[RecordedSpan]:
        """The span that holds all others; open it once, around the whole run."""
        with self.span(name, "run", **attributes) as span:
            self._root = span
            yield span

    @contextmanager
    def span(self, name: str, kind: str, **attributes: Any) -> Iterator[RecordedSpan]:
        span = RecordedSpan(self, name, kind, self._parent(), self._monotonic_ns())
        if attributes:
            span.set(**attributes)
        token = _current.set(span)
        status: Status = "ok"
        try:
            yield span
        except BaseException as error:
            if _interrupts(error):
                status = "interrupted"
                raise
            status = "error"
            code = error.code if isinstance(error, PilothouseError) else "internal_error"
            span.set(error={"type": type(error).__name__, "code": code, "message": told(error)})
            raise
        finally:
            # A stream that is closed from another task ends its span in a context that never saw it begin.
            with suppress(ValueError):
                _current.reset(token)
            self._end(span, status)

    @property
    def records(self) -> tuple[SpanRecord, ...]:
        """Finished spans by start; one that is still open is not among them."""
        return tuple(sorted(self._records, key=lambda record: record.started_at))

    def stations(self) -> tuple[CardStation, ...]:
        """What each station took, by start; a station passed twice is there twice."""
        return tuple(
            CardStation(
                name=record.name,
                started_ms=_milliseconds(record.started_at - self._started_at),
                latency_ms=_milliseconds(record.ended_at - record.started_at),
            )
            for record in self.records
            if record.kind == "station"
        )

    @property
    def elapsed_ms(self) -> float:
        """Since the trace was made."""
        return round((self._monotonic_ns() - self._started_ns) / 1e6, 3)

    def _parent(self) -> RecordedSpan | None:
        span = _current.get()
        # An ended span stays current where a stream was closed elsewhere, and one of another run where runs nest.
        while span is not None and (span.ended or span.trace is not self):
            span = span.parent
        return span or self._root

    def _end(self, span: RecordedSpan, status: Status) -> None:
        span.ended = True
        self._records.append(
            SpanRecord(
                span_id=span.span_id,
                run_id=self.run_id,
                parent_id=span.parent.span_id if span.parent else None,
                name=span.name,
                kind=span.kind,
                started_at=self._at(span.started_ns),
                ended_at=self._at(self._monotonic_ns()),
                status=status,
                attributes=span.attributes,
            )
        )

    def _at(self, monotonic_ns: int) -> datetime:
        return self._started_at + timedelta(microseconds=(monotonic_ns - self._started_ns) / 1_000)


def _interrupts(error: BaseException) -> bool:
    # Importing langgraph costs 2 s; where it has not been imported, nobody can have raised its interrupt.
    langgraph = sys.modules.get("langgraph.errors")
    bubbles = (langgraph.GraphBubbleUp,) if langgraph else ()
    return isinstance(error, (asyncio.CancelledError, GeneratorExit, *bubbles))


def _milliseconds(duration: timedelta) -> float:
    return round(duration / timedelta(milliseconds=1), 3)
