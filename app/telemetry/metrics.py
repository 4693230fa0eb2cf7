"""The server's metrics for Prometheus: counted as things end, measured when somebody asks.

Labels come from closed sets: routes of the application, models and tools of the configuration, kinds and codes of our
errors. Anything else is counted as `other`; no tenant, user, key or text is ever a label. One observation costs about
a microsecond, so the children that labels give are looked up once and kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from app.records import AnswerCard
from app.telemetry.attempts import Attempted
from graphs.errors import PilothouseError

OTHER: Final = "other"
REQUEST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
MODEL_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
LATE_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CACHES: Final = ("exact", "semantic")
BREAKER: Final[Mapping[str, int]] = {"closed": 0, "half_open": 1, "open": 2}
KINDS: Final = ("invalid", "denied", "missing", "conflict", "exhausted", "upstream", "internal")
_KIND_OF_STATUS: Final[Mapping[int, str]] = {
    401: "denied",
    403: "denied",
    404: "missing",
    405: "missing",
    409: "conflict",
    429: "exhausted",
    500: "internal",
}


@dataclass(frozen=True, slots=True)
class _Model:
    """The children of one model."""

    ok: Counter
    failed: Counter
    cancelled: Counter
    cached: Counter
    again: Counter
    took: Histogram
    first: Histogram
    read: Counter
    cached_read: Counter
    said: Counter
    cost: Counter


class Metrics:
    """What one server has counted, in a registry of its own."""

    def __init__(self) -> None:
        # Every counter would have a second series that tells when it was made; the process' start says enough.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._codes = _codes()
        self._routes: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._models: dict[str, _Model] = {}
        self._requests = self._counter("requests", "HTTP requests.", "route", "status")
        self._request_s = self._histogram("request_seconds", "Request to last byte.", REQUEST_S, "route")
        self._errors = self._counter("errors", "Refused requests, and runs and calls that failed.", "at", "kind")
        self._runs = self._counter("runs", "Runs of graphs that ended or wait.", "mode", "status")
        self._calls = self._counter("model_calls", "Attempts at model calls.", "model", "outcome")
        self._again = self._counter("model_retries", "Attempts after a call's first, by the model tried.", "model")
        self._call_errors = self._counter("model_errors", "Failed attempts.", "model", "code")
        self._call_s = self._histogram("model_call_seconds", "Attempts that answered, whole.", MODEL_S, "model")
        self._first_s = self._histogram("first_token_seconds", "Attempts, to their first token.", MODEL_S, "model")
        self._tokens = self._counter("tokens", "Tokens that providers billed.", "model", "direction")
        self._cost = self._counter("cost_usd", "What attempts cost, in US dollars.", "model")
        self._hits = self._counter("cache_hits", "Answers given from a cache.", "kind")
        self._misses = self._counter("cache_misses", "Calls of routes with a cache that found nothing there.")
        self._tools: frozenset[str] = frozenset()
        self._tool_calls = self._counter("tool_calls", "Calls of tools; rejected ones reached none.", "tool", "outcome")
        self._tool_s = self._histogram("tool_call_seconds", "Calls that reached a tool, whole.", MODEL_S, "tool")
        self._late = self._histogram("event_loop_lag_seconds", "How late the loop woke its watch.", LATE_S)
        self.gauges = Gauges(self.registry)
        for kind in CACHES:
            self._hits.labels(kind)
        self._other = self._model(OTHER)

    def know_models(self, names: Iterable[str]) -> None:
        """The models that have series of their own, from now on and from 0."""
        self._models |= {name: self._model(name) for name in names if name not in self._models}

    def request(self, route: str, status: int, took_s: float) -> None:
        """A request has been answered. `route` is the route's pattern, never a path that somebody sent."""
        place = (route, status // 100)
        known = self._routes.get(place)
        if known is None:
            known = self._requests.labels(route, f"{status // 100}xx"), self._request_s.labels(route)
            self._routes[place] = known
        known[0].inc()
        known[1].observe(took_s)
        if status >= 400:
            self._errors.labels("request", _KIND_OF_STATUS.get(status, "invalid" if status < 500 else "upstream")).inc()

    def run(self, card: AnswerCard) -> None:
        """A run has ended, or waits for a person."""
        self._runs.labels(card.mode, card.status).inc()
        if card.error is not None and card.status == "failed":
            self._errors.labels("run", card.error.kind).inc()

    def attempt(self, attempt: Attempted) -> None:
        """An attempt at a model call has ended."""
        bill = attempt.bill
        model = self._models.get(attempt.target.name, self._other)
        outcome: Counter = getattr(model, bill.outcome)
        outcome.inc()
        if bill.outcome == "cached":
            return  # nobody was called, nothing was billed
        if bill.outcome == "ok":
            model.took.observe(bill.latency_ms / 1e3)
        elif bill.outcome == "failed":
            self._failed(attempt)
        if bill.first_token_ms is not None:
            model.first.observe(bill.first_token_ms / 1e3)
        if attempt.number > 1:
            model.again.inc()
        usage = bill.usage
        if usage.input_tokens:
            model.read.inc(usage.input_tokens)
        if usage.cached_input_tokens:
            model.cached_read.inc(usage.cached_input_tokens)
        if usage.output_tokens:
            model.said.inc(usage.output_tokens)
        if bill.cost_micros:
            model.cost.inc(bill.cost_micros / 1e6)

    def looked(self, route: str, found: str) -> None:
        """A route's caches were asked: `exact` or `semantic` is where an answer was, anything else is a miss."""
        if found in CACHES:
            self._hits.labels(found).inc()
        else:
            self._misses.inc()

    def know_tools(self, names: Iterable[str]) -> None:
        """The tools that have series of their own."""
        self._tools = frozenset(names)

    def tool_called(self, name: str, outcome: str, took_s: float) -> None:
        """A call has reached a tool and ended: ok, retry, refused, failed, cancelled."""
        known = name if name in self._tools else OTHER
        self._tool_calls.labels(known, outcome).inc()
        self._tool_s.labels(known).observe(took_s)
        if outcome == "failed":
            self._errors.labels("tool", "upstream").inc()

    def tool_turned_away(self, name: str | None) -> None:
        """A call was unknown, not granted or ill-formed; None where there is no tool of its name."""
        self._tool_calls.labels(name if name in self._tools else OTHER, "rejected").inc()

    def late(self, late_s: float) -> None:
        """The event loop woke somebody so much too late."""
        self._late.observe(late_s)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """Everything in the format that fits the Accept header, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _failed(self, attempt: Attempted) -> None:
        name, code = attempt.target.name, attempt.bill.error_code
        if code not in self._codes:
            self._codes = _codes()  # of a module that was loaded since
        known = code if code in self._codes else OTHER
        self._call_errors.labels(name if name in self._models else OTHER, known).inc()
        self._errors.labels("model", "internal" if code == PilothouseError.code else "upstream").inc()

    def _model(self, name: str) -> _Model:
        return _Model(
            ok=self._calls.labels(name, "ok"),
            failed=self._calls.labels(name, "failed"),
            cancelled=self._calls.labels(name, "cancelled"),
            cached=self._calls.labels(name, "cached"),
            again=self._again.labels(name),
            took=self._call_s.labels(name),
            first=self._first_s.labels(name),
            read=self._tokens.labels(name, "input"),
            cached_read=self._tokens.labels(name, "cached_input"),
            said=self._tokens.labels(name, "output"),
            cost=self._cost.labels(name),
        )

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(name, told, labels, namespace="pilothouse", registry=self.registry)

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, told, labels, namespace="pilothouse", registry=self.registry, buckets=buckets)


class Gauges:
    """What is measured when somebody asks; set from a look at the server's health."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, told: str, *labels: str) -> Gauge:
            return Gauge(name, told, labels, namespace="pilothouse", registry=registry)

        self.breaker = gauge("breaker_state", "0 closed, 1 half open, 2 open.", "model")
        self.tool_breaker = gauge("tool_breaker_state", "0 closed, 1 half open, 2 open.", "tool")
        self.running = gauge("requests_running", "Requests that hold a place.")
        self.waiting = gauge("requests_waiting", "Requests in the queue.")
        self.commits = gauge("ledger_commits_waiting", "Pieces of the ledger's work not taken up yet.")
        self.backlog = gauge("trace_backlog_runs", "Ended runs that were not exported yet; NaN without the store.")
        self.unread = gauge("alerts_unread", "Alerts that nobody has acknowledged; NaN without the store.")
        self.off = gauge("switched_off", "What operators have switched off.", "kind")

    def breaker_is(self, model: str, state: str) -> None:
        self.breaker.labels(model).set(BREAKER[state])

    def tool_breaker_is(self, tool: str, state: str) -> None:
        self.tool_breaker.labels(tool).set(BREAKER[state])


def _codes() -> frozenset[str]:
    """The codes of all errors that this process has loaded."""
    return frozenset(error.code for error in _tree(PilothouseError))


def _tree(error: type[PilothouseError]) -> Iterable[type[PilothouseError]]:
    yield error
    for child in error.__subclasses__():
        yield from _tree(child)
