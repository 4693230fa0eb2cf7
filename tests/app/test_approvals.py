"""Approvals: a run waits for a person, for days and across restarts, and acts at most once."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.fleet import Fleet
from app.services.gateway.scripted import Say
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.store.store import Store
from graphs.errors import Conflict, Forbidden, Invalid, Missing
from graphs.types import ToolProposal
from tests.app.lite import ANN, BOB, EVE, Lite, lite, now

TICKET = Say(tool_calls=(ToolProposal("x", "create_ticket", {"title": "Printer", "body": "It is broken."}),))
SUM = Say(tool_calls=(ToolProposal("x", "calculator", {"expression": "6 * 7"}),))


async def finished(bench: Lite, run_id: str) -> str:
    async with asyncio.timeout(60):
        while (card := await bench.runner.card(ANN, run_id)).status in ("running", "waiting"):
            await asyncio.sleep(0.01)
    return card.status


async def test_a_reading_tool_runs_without_asking(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [SUM, "It is 42."], embedder) as bench:
        answer = await bench.ask("6 times 7?", mode="agent")
        assert answer.types[1:3] == ["tool.proposed", "tool.completed"]
        card = await bench.runner.card(ANN, answer.run_id)
        assert [(tool.name, tool.status, tool.summary) for tool in card.tools] == [("calculator", "ok", "6 * 7 = 42")]
        assert card.answer == "It is 42."


async def test_a_writing_tool_waits_and_runs_once_when_approved(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [TICKET, "Done."], embedder) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        assert answer.types[-1] == "approval.required"
        assert not (await bench.store.tickets.list("acme")).items
        (waiting,) = (await bench.store.approvals.list("acme")).items
        assert (waiting.tool, waiting.arguments["title"]) == ("create_ticket", "Printer")
        await bench.runner.decide(ANN, waiting.approval_id, "approve")
        rest = [event async for event in bench.runner.events(ANN, answer.run_id, after=answer.events[-1].number)]
        assert rest[-1].type == "run.completed"
        assert rest[0].number == answer.events[-1].number + 1
        (ticket,) = (await bench.store.tickets.list("acme")).items
        assert (ticket.title, ticket.user_id) == ("Printer", "ann")
        with pytest.raises(Conflict):
            await bench.runner.decide(ANN, waiting.approval_id, "approve")


async def test_a_denied_call_never_runs_and_the_model_is_told(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [TICKET, "As you wish."], embedder) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        await bench.runner.decide(ANN, waiting.approval_id, "deny", comment="not now")
        assert await finished(bench, answer.run_id) == "completed"
        assert not (await bench.store.tickets.list("acme")).items
        assert "not now" in list(bench.gateway.requests)[-1].messages[-1].content


async def test_a_person_may_change_the_arguments_within_the_tools_schema(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, [TICKET, "Done."], embedder) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        with pytest.raises(Invalid) as refused:
            await bench.runner.decide(ANN, waiting.approval_id, "approve", arguments={"title": "", "tenant": "other"})
        assert refused.value.field == "arguments"
        changed = {"title": "Scanner", "body": "Not the printer."}
        await bench.runner.decide(ANN, waiting.approval_id, "approve", arguments=changed)
        assert await finished(bench, answer.run_id) == "completed"
        (ticket,) = (await bench.store.tickets.list("acme")).items
        assert ticket.title == "Scanner"


async def test_of_twenty_decisions_at_once_one_wins(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [TICKET, "Done."], embedder) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        tries = [
            bench.runner.decide(ANN, waiting.approval_id, "approve" if number % 2 else "deny") for number in range(20)
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(not isinstance(result, Exception) for result in results) == 1
        assert all(isinstance(result, Conflict) for result in results if isinstance(result, Exception))
        await finished(bench, answer.run_id)
        assert len((await bench.store.tickets.list("acme")).items) <= 1


async def test_only_those_with_the_scope_and_the_tenant_decide(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [TICKET], embedder) as bench:
        await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        with pytest.raises(Forbidden):
            await bench.runner.decide(BOB, waiting.approval_id, "approve")
        with pytest.raises(Missing):
            await bench.runner.decide(EVE, waiting.approval_id, "approve")


def forget_checkpoints(home: Path) -> None:
    for path in home.glob("checkpoints.db*"):
        path.unlink()


async def test_a_run_whose_checkpoint_is_elsewhere_fails_and_never_answers_with_nothing(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, [TICKET], embedder) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
    forget_checkpoints(tmp_path)
    async with lite(tmp_path, ["Done."], embedder) as bench:
        (waiting,) = (await bench.store.approvals.list("acme")).items
        await bench.runner.decide(ANN, waiting.approval_id, "approve")
        assert await finished(bench, answer.run_id) == "failed"
        assert not (await bench.store.tickets.list("acme")).items


async def test_a_waiting_run_survives_a_restart(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [TICKET], embedder) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
    async with lite(tmp_path, ["Done."], embedder) as bench:
        (waiting,) = (await bench.store.approvals.list("acme")).items
        await bench.runner.decide(ANN, waiting.approval_id, "approve")
        assert await finished(bench, answer.run_id) == "completed"
        assert len((await bench.store.tickets.list("acme")).items) == 1
        card = await bench.runner.card(ANN, answer.run_id)
        assert card.usage.calls == 2
        assert {station.name for station in card.stations} >= {"screen", "decide", "approve", "act", "validate"}


async def test_an_approval_nobody_decides_expires_as_denied(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    later = timedelta(0)

    def clock() -> datetime:
        return now() + later

    async with lite(tmp_path, [TICKET, "It was not approved."], embedder, clock=clock) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        later = timedelta(hours=2)
        await bench.runner.go_on()
        assert await finished(bench, answer.run_id) == "completed"
        assert not (await bench.store.tickets.list("acme")).items


async def test_a_waiting_run_can_be_cancelled_and_then_not_decided(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [TICKET], embedder) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        await bench.runner.cancel(ANN, answer.run_id)
        with pytest.raises(Conflict):
            await bench.runner.decide(ANN, waiting.approval_id, "approve")


async def test_an_agent_that_always_asks_again_is_stopped_by_its_step_limit(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    def greedy(request: object) -> Say | str:
        return SUM if request.tools else "Enough."  # type: ignore[attr-defined]

    async with lite(tmp_path, greedy, embedder) as bench:
        answer = await bench.ask("6 times 7?", mode="agent")
        card = await bench.runner.card(ANN, answer.run_id)
        assert (len(card.tools), card.answer) == (4, "Enough.")


async def test_an_unknown_or_ill_formed_call_is_told_to_the_model_and_asks_nobody(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    wrong = Say(
        tool_calls=(ToolProposal("x", "delete_everything", {}), ToolProposal("y", "create_ticket", {"title": 7}))
    )
    async with lite(tmp_path, [wrong, "Sorry."], embedder) as bench:
        answer = await bench.ask("do it", mode="agent")
        card = await bench.runner.card(ANN, answer.run_id)
        assert [tool.status for tool in card.tools] == ["refused", "retry"]
        assert card.status == "completed"


KILLED = """
import asyncio, json, os, signal, sys
from pathlib import Path
from app.runner import Runner
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.tools.create_ticket import CreateTicket
from tests.app.lite import ANN, lite
from tests.app.test_approvals import TICKET

async def main(home, place):
    created = CreateTicket.run
    async def run_and_die(self, call):
        await created(self, call)
        os.kill(os.getpid(), signal.SIGKILL)  # the ticket is written, its result is not
    async def die(self, record, decided):
        os.kill(os.getpid(), signal.SIGKILL)  # the decision is written, nothing has come of it
    if place == "tool":
        CreateTicket.run = run_and_die
    else:
        Runner._resume = die
    async with lite(home, [TICKET], MiniLmEmbedder()) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        print(json.dumps(answer.run_id), flush=True)
        (waiting,) = (await bench.store.approvals.list("acme")).items
        await bench.runner.decide(ANN, waiting.approval_id, "approve")
        await asyncio.sleep(30)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("place", ["decision", "tool"])
async def test_a_process_killed_at_its_decision_or_inside_the_tool_finishes_the_run_once_after_its_restart(
    tmp_path: Path, embedder: MiniLmEmbedder, place: str
) -> None:
    command = (sys.executable, "-c", KILLED, str(tmp_path), place)
    killed = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run_id = json.loads(killed.stdout.splitlines()[0])
    async with lite(tmp_path, ["Done."], embedder) as bench:
        assert await finished(bench, run_id) == "completed"
        assert len((await bench.store.tickets.list("acme")).items) == 1


ELSEWHERE = """
import asyncio, sys
from pathlib import Path
from app.services.retrieval.embedder import MiniLmEmbedder
from tests.app.lite import lite
from tests.app.test_approvals import Named, ten_at_once
from app.fleet import Fleet

async def main(home, url, approval_id):
    def fleet(store):
        return Fleet(store, Named("b"), bound_s=60, grace_s=60)
    async with lite(home, ["Done."], MiniLmEmbedder(), fleet=fleet, database_url=url) as bench:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(await ten_at_once(bench, approval_id), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


@dataclass
class Named:
    """One of two processes that both live."""

    process_id: str

    async def living(self) -> Collection[str]:
        return {"a", "b"}


async def ten_at_once(bench: Lite, approval_id: str) -> int:
    """How many of ten decisions, of either kind, were the one that won. None may fail otherwise."""
    tries = [bench.runner.decide(ANN, approval_id, "approve" if number % 2 else "deny") for number in range(10)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert all(isinstance(result, Conflict) for result in results if isinstance(result, BaseException))
    return sum(not isinstance(result, BaseException) for result in results)


@pytest.mark.timeout(200)  # another process is started
async def test_t07_of_twenty_decisions_at_two_processes_one_wins_and_the_tool_runs_at_most_once(
    tmp_path: Path, store_url: str, embedder: MiniLmEmbedder
) -> None:
    def fleet(store: Store) -> Fleet:
        return Fleet(store, Named("a"), bound_s=60, grace_s=60)

    async with lite(tmp_path, [TICKET, "Done."], embedder, fleet=fleet, database_url=store_url) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        command = (sys.executable, "-c", ELSEWHERE, str(tmp_path), store_url, waiting.approval_id)
        pipe = asyncio.subprocess.PIPE
        other = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert other.stdin is not None
        assert other.stdout is not None
        assert await asyncio.wait_for(other.stdout.readline(), 110) == b"ready\n"
        other.stdin.write(b"go\n")
        here, there = await asyncio.gather(ten_at_once(bench, waiting.approval_id), other.stdout.readline())
        assert here + int(there) == 1
        assert await finished(bench, answer.run_id) == "completed"
        decided = await bench.store.approvals.get(waiting.approval_id, "acme")
        assert len((await bench.store.tickets.list("acme")).items) == (decided.state == "approved")
        card = await bench.runner.card(ANN, answer.run_id)
        assert [tool.status for tool in card.tools] == ["ok" if decided.state == "approved" else "denied"]
        other.stdin.write(b"stop\n")
        assert await asyncio.wait_for(other.wait(), 60) == 0
