"""A tool within its bounds, over a real store where its calls are written down."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from app.services.database import to_us
from app.services.store.database import StoreUnavailable
from app.services.store.store import Store
from app.services.tools.bounded import BoundedTool, Bounds
from app.services.tools.calls import KEPT, CallBook, Called, CallOutcome
from app.services.tools.lane import POLICY, Lane
from app.services.tools.tables import calls
from app.services.tools.tool import ToolCall, ToolOutput
from app.services.tools.toolbox import ScopedToolbox
from app.telemetry.metrics import Metrics
from app.telemetry.spans import RunTrace
from graphs.errors import Missing, ToolRefused, ToolRetry, UpstreamError
from graphs.types import Risk, ToolProposal, ToolResult, ToolSpec


class Act:
    """Has its effect on the world, then ends as it is told."""

    examples = ()

    def __init__(self, risk: Risk = "write", end: Callable[[], Any] = lambda: "done") -> None:
        self.spec = ToolSpec("act", "Do it.", {"type": "object"}, risk)
        self.end, self.effects = end, 0

    async def run(self, call: ToolCall) -> ToolOutput:
        self.effects += 1
        ended = self.end()
        return ToolOutput(str(await ended if asyncio.iscoroutine(ended) else ended))


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def raising(error: Exception) -> Callable[[], str]:
    def end() -> str:
        raise error

    return end


async def run(tool: BoundedTool, call_id: str = "c1") -> ToolResult:
    toolbox = ScopedToolbox([tool], tenant_id="acme", user_id="ada", run_id="r1", trace=RunTrace("r1"))
    return await toolbox.run(ToolProposal(call_id, "act", {}))


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(store_url)
    yield opened
    await opened.close()


async def outcomes(store: Store) -> list[str]:
    async with store.database.read() as connection:
        return list((await connection.execute(select(calls.c.outcome).order_by(calls.c.call_key))).scalars())


@pytest.mark.parametrize(
    ("end", "status", "outcome"),
    [
        (lambda: "done", "ok", "ok"),
        (raising(ToolRetry("mend it")), "retry", "retry"),
        (raising(ToolRefused("no")), "refused", "refused"),
        (raising(Missing("no such thing")), "refused", "refused"),
        (raising(UpstreamError("it broke off")), "refused", "begun"),
        (lambda: asyncio.sleep(60), "refused", "begun"),
    ],
)
async def test_a_call_that_has_run_is_not_run_again_and_its_book_says_what_is_known(
    store: Store, end: Callable[[], Any], status: str, outcome: str
) -> None:
    act = Act(end=end)
    tool = BoundedTool(act, Bounds(timeout_s=0.05), book=CallBook(store.database))
    assert (await run(tool)).status == status
    again = await run(tool)
    told = "its outcome is not known" if outcome == "begun" else f"it ended as {outcome}"
    assert (again.status, told in again.content) == ("refused", True)
    assert (act.effects, await outcomes(store)) == (1, [outcome])
    assert (await run(tool, "c2")).status == status
    audited = [entry for entry in await store.audit.latest("acme", 10) if entry.action == "tool.called"]
    assert len(audited) == 2


async def test_a_tool_that_takes_the_key_runs_again_and_one_that_reads_is_not_written_down(store: Store) -> None:
    book = CallBook(store.database)
    keyed, reading = Act(), Act("read")
    for _ in range(2):
        assert (await run(BoundedTool(keyed, book=book, repeatable=True))).status == "ok"
        assert (await run(BoundedTool(reading, book=book))).status == "ok"
    assert (keyed.effects, reading.effects, await outcomes(store)) == (2, 2, ["ok"])


async def test_of_many_that_begin_the_same_call_at_two_stores_one_runs(store: Store, store_url: str) -> None:
    act, other = Act(end=lambda: asyncio.sleep(0.05)), await Store.open(store_url)
    tools = [BoundedTool(act, book=CallBook(each.database)) for each in (store, other) for _ in range(5)]
    results = await asyncio.gather(*(run(tool) for tool in tools))
    await other.close()
    assert sorted(result.status for result in results) == ["ok", *["refused"] * 9]
    assert act.effects == 1


class Away:
    """The book while the database does not answer."""

    async def begin(self, call: ToolCall, called: Called) -> CallOutcome | None:
        raise StoreUnavailable("the database does not answer")

    async def end(self, call: ToolCall, outcome: CallOutcome, content: str) -> None:
        raise AssertionError("it did not begin")


async def test_what_cannot_be_written_down_does_not_run_and_is_no_fault_of_the_tool() -> None:
    act, lane = Act(), Lane("act", 4)
    for number in range(2 * POLICY.min_calls):
        refused = await run(BoundedTool(act, book=Away(), lane=lane), f"c{number}")
        assert (refused.status, refused.content) == ("refused", "the database does not answer")
    assert (act.effects, lane.breaker.state(0.0)) == (0, "closed")


async def test_calls_are_forgotten_when_no_run_can_ask_for_them_any_more(store: Store) -> None:
    act, book = Act(), CallBook(store.database)
    await run(BoundedTool(act, book=book))
    await book.forget()
    assert await outcomes(store) == ["ok"]
    async with store.database.write() as connection:
        await connection.execute(update(calls).values(begun_us=to_us(store.database.clock() - KEPT) - 1))
    await book.forget()
    assert await outcomes(store) == []


async def test_a_tool_that_keeps_failing_is_left_alone_and_tried_again_later() -> None:
    clock, lane_ends = Clock(), [raising(UpstreamError("away"))]
    act = Act("read", lambda: lane_ends[0]())
    tool = BoundedTool(act, lane=Lane("act", 4, now=clock))
    for number in range(POLICY.min_calls):
        assert (await run(tool, f"c{number}")).content == "away"
    resting = await run(tool, "c5")
    assert (resting.status, "left alone" in resting.content, act.effects) == ("refused", True, POLICY.min_calls)
    clock.now += 2 * POLICY.open_s
    lane_ends[0] = lambda: "back"
    assert (await run(tool, "c6")).content == "back"
    assert (await run(tool, "c7")).content == "back"


@pytest.mark.parametrize(
    "end",
    [raising(ToolRetry("mend")), raising(ToolRefused("no")), raising(Missing("gone")), None],
    ids=["retry", "refused", "missing", "cancelled"],
)
async def test_mistakes_of_the_model_and_cancelled_calls_leave_the_breaker_closed(
    end: Callable[[], Any] | None,
) -> None:
    act = Act("read", end or (lambda: asyncio.sleep(60)))
    tool = BoundedTool(act, lane=(lane := Lane("act", 4)))
    for number in range(2 * POLICY.min_calls):
        task = asyncio.create_task(run(tool, f"c{number}"))
        if end is None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait({task})
    assert act.effects == 2 * POLICY.min_calls
    assert lane.breaker.state(0.0) == "closed"


async def test_all_runs_of_the_process_share_a_tools_places() -> None:
    most = running = 0

    async def work() -> str:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return "done"

    lane, act = Lane("act", 2), Act("read", work)
    results = await asyncio.gather(*(run(BoundedTool(act, lane=lane)) for _ in range(8)))
    assert {result.status for result in results} == {"ok"}
    assert most == 2
    impatient = BoundedTool(act, Bounds(timeout_s=0.001), lane=Lane("act", 0))
    assert "is busy" in (await run(impatient)).content


async def test_a_call_that_waits_for_a_place_is_not_written_down(store: Store) -> None:
    tool = BoundedTool(Act(), Bounds(timeout_s=0.001), lane=Lane("act", 0), book=CallBook(store.database))
    assert (await run(tool)).status == "refused"
    assert await outcomes(store) == []


async def test_calls_are_counted_by_how_they_end_and_by_tools_of_the_file_alone() -> None:
    metrics = Metrics()
    metrics.know_tools(["act"])
    for end in (lambda: "done", raising(UpstreamError("away"))):
        await run(BoundedTool(Act("read", end), observe=metrics.tool_called))
    metrics.tool_called("a stranger's", "ok", 0.1)
    for name in ("act", "a stranger's", None):
        metrics.tool_turned_away(name)
    told = metrics.text()[0].decode()
    for line in (
        'pilothouse_tool_calls_total{outcome="ok",tool="act"} 1.0',
        'pilothouse_tool_calls_total{outcome="failed",tool="act"} 1.0',
        'pilothouse_tool_calls_total{outcome="ok",tool="other"} 1.0',
        'pilothouse_tool_calls_total{outcome="rejected",tool="act"} 1.0',
        'pilothouse_tool_calls_total{outcome="rejected",tool="other"} 2.0',
        'pilothouse_errors_total{at="tool",kind="upstream"} 1.0',
        'pilothouse_tool_call_seconds_count{tool="act"} 2.0',
    ):
        assert line in told
    assert "stranger" not in told


async def test_text_that_no_database_keeps_is_mended() -> None:
    assert (await run(BoundedTool(Act("read", lambda: "nul \x00 in a longer text than that")))).content == (
        "nul \N{REPLACEMENT CHARACTER} in a longer text than that"
    )
