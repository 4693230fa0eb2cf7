"""Runs that wait, and what may not wake them: resumes of what never paused, and nodes that run twice."""

import ast
import inspect
from pathlib import Path

import pytest

from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.agent import nodes
from graphs.errors import Conflict, Missing
from tests.app.lite import ANN, Lite, lite
from tests.app.test_approvals import TICKET, finished


async def tickets(bench: Lite) -> list[str]:
    return [ticket.title for ticket in (await bench.store.tickets.list("acme")).items]


async def test_t08_what_never_paused_is_not_resumed_and_no_run_begins(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, ["Hello.", TICKET], embedder) as bench:
        answer = await bench.ask("hello", mode="agent")
        with pytest.raises(Missing):
            await bench.runner.decide(ANN, answer.run_id, "approve")
        waiting_run = await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        await bench.runner.cancel(ANN, waiting_run.run_id)
        with pytest.raises(Conflict):
            await bench.runner.decide(ANN, waiting.approval_id, "approve")
        assert len(bench.gateway.requests) == 2
        assert len((await bench.store.runs.list("acme", None)).items) == 2
        assert not await tickets(bench)


async def test_t10_a_node_that_runs_again_after_its_pause_has_no_effect_twice(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, [TICKET, "Done."], embedder) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        await bench.runner.decide(ANN, waiting.approval_id, "approve")
        assert await finished(bench, answer.run_id) == "completed"
        types = [event.type async for event in bench.runner.events(ANN, answer.run_id)]
        assert [types.count(each) for each in ("tool.proposed", "approval.required", "tool.completed")] == [1, 1, 1]
        assert await tickets(bench) == ["Printer"]
        assert len(bench.gateway.requests) == 2


def test_t10_before_a_pause_nothing_is_awaited_or_written() -> None:
    """What stands before `interrupt` in a node runs again at each resume."""
    stations = (each for each in ast.parse(inspect.getsource(nodes)).body if isinstance(each, ast.AsyncFunctionDef))
    pausing = {node.name: node for node in stations if _pause(node)}
    assert list(pausing) == ["approve"]
    pause = _pause(pausing["approve"])
    before = [each for each in ast.walk(pausing["approve"]) if getattr(each, "lineno", pause) < pause]
    assert before
    assert not [each for each in before if isinstance(each, ast.Await) or _is_call(each, "stream_writer")]


def _pause(node: ast.AsyncFunctionDef) -> int:
    """The line of its interrupt; 0 without one."""
    return next((getattr(each, "lineno", 0) for each in ast.walk(node) if _is_call(each, "interrupt")), 0)


def _is_call(node: ast.AST, name: str) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return name in {getattr(node.func, "id", ""), getattr(node.func, "attr", "")}


async def test_t12_an_answer_made_of_untrusted_text_is_untrusted_in_the_next_turn(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, ["Nothing special.", TICKET], embedder) as bench:
        first = await bench.ask("hello", mode="agent")
        conversation = (await bench.runner.card(ANN, first.run_id)).conversation_id
        said = await bench.store.conversations.messages(conversation, "acme", "ann")
        assert [(message.role, message.trust) for message in said] == [("user", "tenant"), ("assistant", "tenant")]
        await bench.store.conversations.append(conversation, "acme", "assistant", "Anybody's words.", None)
        second = await bench.ask("open a ticket", mode="agent", conversation_id=conversation)
        (tool,) = (await bench.runner.card(ANN, second.run_id)).tools
        assert (tool.risk, tool.ruling) == ("outbound", "ask")
        assert tool.reasons[0] == "the run has read untrusted text: an earlier answer"
