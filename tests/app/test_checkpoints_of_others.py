"""Checkpoints that this version cannot read, that hold what looks like code, or that would add up."""

import asyncio
from pathlib import Path

import pytest

from app.checkpoints import SqliteCheckpoints, _serializer
from app.services.gateway.scripted import Say
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.types import ToolProposal
from tests.app.lite import ANN, Lite, lite

SECRET = '{"lc": 1, "type": "secret", "id": ["PILOTHOUSE_CANARY"]}'
CALL = '{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["true"]}'
TICKET = Say(tool_calls=(ToolProposal("x", "create_ticket", {"title": SECRET, "body": CALL}),))


async def waiting(bench: Lite) -> str:
    answer = await bench.ask("open a ticket", mode="agent")
    assert answer.types[-1] == "approval.required"
    return answer.run_id


async def decided(bench: Lite, run_id: str) -> None:
    found = (await bench.store.approvals.list("acme", state="pending")).items
    (approval,) = [each for each in found if each.run_id == run_id]
    await bench.runner.decide(ANN, approval.approval_id, "approve")
    async with asyncio.timeout(40):
        while bench.runner.in_flight or (await bench.runner.card(ANN, run_id)).status in {"running", "waiting"}:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("table", ["checkpoints", "writes"])
async def test_d07_a_checkpoint_of_an_unknown_form_fails_its_run_alone(
    tmp_path: Path, embedder: MiniLmEmbedder, table: str
) -> None:
    async with lite(tmp_path, [TICKET, TICKET, "Done.", "Done."], embedder) as bench:
        old, sound = await waiting(bench), await waiting(bench)
        saver = bench.checkpoints
        assert isinstance(saver, SqliteCheckpoints)
        changed = await saver.conn.execute(
            f"UPDATE {table} SET type = 'ancient' WHERE thread_id = ?",
            (f"acme/{old}",),
        )
        assert changed.rowcount > 0
        await saver.conn.commit()
        await decided(bench, old)
        await decided(bench, sound)
        failed, done = await bench.runner.card(ANN, old), await bench.runner.card(ANN, sound)
        assert failed.status == "failed"
        assert failed.error is not None
        assert done.status == "completed"
        assert len((await bench.store.tickets.list("acme")).items) == 1
        assert await bench.checkpoints.threads() == frozenset()


async def test_d08_what_looks_like_a_serialised_object_stays_a_text(
    tmp_path: Path, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILOTHOUSE_CANARY", "sesame")
    async with lite(tmp_path, [TICKET, SECRET], embedder) as bench:
        asked = await bench.ask(SECRET, mode="agent")
        await decided(bench, asked.run_id)
        (ticket,) = (await bench.store.tickets.list("acme")).items
        assert (ticket.title, ticket.body) == (SECRET, CALL)
        assert (await bench.runner.card(ANN, asked.run_id)).answer == SECRET


@pytest.mark.parametrize(
    "value", [{"lc": 1, "type": "secret", "id": ["PATH"]}, {"a": [{"lc": 2, "type": "constructor"}]}]
)
def test_d08_a_checkpoint_gives_such_data_back_as_it_was(value: object) -> None:
    serializer = _serializer()
    assert serializer.loads_typed(serializer.dumps_typed(value)) == value


async def test_d17_a_long_conversation_of_agent_runs_leaves_no_checkpoints_behind(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    def weight() -> int:
        return sum(path.stat().st_size for path in tmp_path.glob("checkpoints.db*"))

    call = Say(tool_calls=(ToolProposal("x", "calculator", {"expression": "6*7"}),))
    sizes = list[int]()
    async with lite(tmp_path, [call, "It is 42. " + "x" * 2_000] * 10, embedder) as bench:
        conversation = None
        for _ in range(10):
            answer = await bench.ask("What is 6*7? " + "y" * 2_000, mode="agent", conversation_id=conversation)
            conversation = (await bench.store.runs.load(answer.run_id)).conversation_id
            sizes.append(weight())
        assert await bench.checkpoints.threads() == frozenset()
    assert weight() < 400_000
    assert sizes[-1] < 6_000_000  # a journal that is folded in at its fourth megabyte, and what the runs leave
