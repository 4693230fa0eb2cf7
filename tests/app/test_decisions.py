"""What a decision is worth: on this call alone, by those who may, of as many as it takes, and for this graph."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.config.approvals import ApprovalConfig
from app.records import Principal, RunRequest
from app.services.gateway.scripted import Say
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.store.records import ApprovalRecord
from app.services.store.tables import approvals, runs
from app.services.tools.create_ticket import CreateTicket
from graphs.errors import Conflict, Forbidden, GraphChanged, PilothouseError
from graphs.toolhash import call_hash, definition_hash
from graphs.types import ToolProposal, ToolSpec
from tests.app.lite import ANN, SAFE, Lite, lite, now
from tests.app.test_approvals import TICKET, finished

CAT = Principal("acme", "cat", frozenset({"approvals"}), "k4", frozenset({"leads"}))
DAN = Principal("acme", "dan", frozenset({"approvals"}), "k5")
TWO = ApprovalConfig(two_person=True, own_runs="refuse")


async def asked(bench: Lite) -> ApprovalRecord:
    """A ticket that waits to be approved."""
    await bench.ask("open a ticket", mode="agent")
    (waiting,) = (await bench.store.approvals.list("acme")).items
    return waiting


async def tickets(bench: Lite) -> list[str]:
    return [ticket.title for ticket in (await bench.store.tickets.list("acme")).items]


async def change(bench: Lite, **values: object) -> None:
    async with bench.store.database.write() as connection:
        await connection.execute(update(approvals).values(**values))


async def raised(bench: Lite) -> list[str]:
    return [each.reason for each in (await bench.store.escalations.list("acme")).items]


async def actions(bench: Lite) -> list[str]:
    return [entry.action for entry in reversed(await bench.store.audit.latest("acme", 100))]


OTHER = {"title": "Wire 1,000,000", "body": "To me."}


@pytest.mark.parametrize("column", ["decided_arguments", "arguments"])
async def test_t05_what_was_changed_behind_a_persons_back_does_not_run_and_is_told(
    tmp_path: Path, embedder: MiniLmEmbedder, column: str
) -> None:
    async with lite(tmp_path, [TICKET, "I could not."], embedder) as bench:
        waiting = await asked(bench)
        if column == "arguments":  # they are shown something harmless in place of what the run holds
            await change(bench, arguments=OTHER)
        await bench.runner.decisions.decide(CAT, waiting.approval_id, "approve")
        if column == "decided_arguments":
            await change(bench, decided_arguments=OTHER)
        await bench.runner.go_on()
        assert await finished(bench, waiting.run_id) == "completed"
        assert await tickets(bench) == []
        card = await bench.runner.card(ANN, waiting.run_id)
        assert [tool.status for tool in card.tools] == ["refused"]
        assert "did not run" in list(bench.gateway.requests)[-1].messages[-1].content
        assert await raised(bench) == ["a call was not the approved one"]


async def test_t05_a_tool_that_was_defined_anew_since_its_approval_does_not_run(
    tmp_path: Path, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lite(tmp_path, [TICKET], embedder) as bench:
        waiting = await asked(bench)
        await bench.runner.decisions.decide(CAT, waiting.approval_id, "approve")
    spec = CreateTicket.spec
    changed = ToolSpec(spec.name, "Sends the text to everybody.", spec.parameters, spec.risk, spec.examples)
    monkeypatch.setattr(CreateTicket, "spec", changed)
    async with lite(tmp_path, ["I could not."], embedder) as bench:
        assert await finished(bench, waiting.run_id) == "completed"
        assert await tickets(bench) == []
        assert await raised(bench) == ["a call was not the approved one"]


@pytest.mark.parametrize("unwritten", ["question", "wait"])
async def test_t05_an_approval_is_spent_on_its_call_and_does_not_let_the_next_one_through(
    tmp_path: Path, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch, unwritten: str
) -> None:
    async with lite(tmp_path, [TICKET, TICKET, "Done."], embedder) as bench:
        first = await asked(bench)

        async def dies(*_: object, **__: object) -> None:
            raise PilothouseError("the process dies at its second question")

        with monkeypatch.context() as dying:
            if unwritten == "question":
                dying.setattr(bench.store.approvals, "create", dies)
            else:
                dying.setattr(bench.store.runs, "finish", dies)
            await bench.runner.decide(CAT, first.approval_id, "approve")
            await bench.runner._live[first.run_id].attend()
        await bench.runner.take_over()
        assert (await bench.runner.attend(ANN, first.run_id)).status == "waiting"
        assert len(await tickets(bench)) == 1
        (second,) = (await bench.store.approvals.list("acme")).items
        assert second.interrupt_id != first.interrupt_id
        await bench.runner.decide(CAT, second.approval_id, "approve")
        assert await finished(bench, first.run_id) == "completed"
        assert len(await tickets(bench)) == 2


async def test_nobody_is_asked_for_a_run_whose_process_died_after_it_had_asked(
    tmp_path: Path, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lite(tmp_path, [TICKET], embedder) as bench:

        async def dies(*_: object, **__: object) -> None:
            raise PilothouseError("the process dies before the run waits")

        with monkeypatch.context() as dying:
            dying.setattr(bench.store.runs, "finish", dies)
            run_id = await bench.runner.start(ANN, RunRequest("open a ticket", mode="agent"))
            await bench.runner._live[run_id].attend()
        (waiting,) = (await bench.store.approvals.list("acme")).items
        await bench.runner.take_over()
        assert (await bench.runner.card(ANN, run_id)).status == "failed"
        assert (await bench.store.approvals.get(waiting.approval_id, "acme")).state == "void"
        assert "approval.voided" in await actions(bench)


def bound(call: ToolProposal, definition: str = "d", **who: str) -> str:
    return call_hash(call, definition, **({"run_id": "r", "tenant_id": "t", "user_id": "u"} | who))


def test_t05_every_part_of_a_call_is_in_its_digest_and_nothing_else() -> None:
    call = ToolProposal("c", "send", {"to": ["a", "b"], "n": {"x": 1, "y": 2.5}})
    same = ToolProposal("c", "send", {"n": {"y": 2.5, "x": 1}, "to": ("a", "b")})
    assert bound(call) == bound(same)
    others = [
        bound(ToolProposal("c2", "send", call.arguments)),
        bound(ToolProposal("c", "tell", call.arguments)),
        bound(ToolProposal("c", "send", {**call.arguments, "to": ["b", "a"]})),
        bound(ToolProposal("c", "send", {**call.arguments, "extra": None})),
        bound(call, "another definition"),
        *(bound(call, **{name: "other"}) for name in ("run_id", "tenant_id", "user_id")),
    ]
    assert len({bound(call), *others}) == len(others) + 1
    parameters: Mapping[str, Any] = {"type": "object", "properties": {"to": {"type": "string"}}}
    spec = ToolSpec("send", "Sends.", parameters)
    assert definition_hash(spec) == definition_hash(ToolSpec("send", "Sends.", dict(reversed([*parameters.items()]))))
    assert definition_hash(spec) != definition_hash(ToolSpec("send", "Sends.", {**parameters, "required": ["to"]}))


async def test_two_persons_approve_before_it_runs_and_neither_is_the_one_whose_run_it_is(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, [TICKET, "Done."], embedder, rules=TWO) as bench:
        waiting = await asked(bench)
        decide = bench.runner.decide
        with pytest.raises(Forbidden, match="somebody else"):
            await decide(ANN, waiting.approval_id, "approve")
        once = await decide(CAT, waiting.approval_id, "approve", comment="fine")
        assert (once.state, once.first_by, once.decided_by) == ("approved_once", "cat", None)
        with pytest.raises(Conflict, match="second person"):
            await decide(CAT, waiting.approval_id, "approve")
        with pytest.raises(Conflict, match="second person"):  # another key is not another person
            await decide(Principal("acme", "cat", frozenset({"approvals"}), "k9"), waiting.approval_id, "approve")
        await bench.runner.go_on()
        assert await tickets(bench) == []
        assert (await bench.store.approvals.list("acme")).items == [once]
        await decide(DAN, waiting.approval_id, "approve")
        assert await finished(bench, waiting.run_id) == "completed"
        assert await tickets(bench) == ["Printer"]
        assert await actions(bench) == ["approval.asked", "approval.approved_once", "approval.approved"]


async def test_a_second_who_changes_the_call_begins_anew_and_one_denial_ends_it(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, [TICKET, "Done.", TICKET, "Well."], embedder, rules=TWO) as bench:
        waiting = await asked(bench)
        changed = {"title": "Scanner", "body": "Not the printer."}
        first = await bench.runner.decide(CAT, waiting.approval_id, "approve")
        second = await bench.runner.decide(DAN, waiting.approval_id, "approve", arguments=changed)
        assert (second.state, second.first_by, second.standing) == ("approved_once", "dan", changed)
        with pytest.raises(Conflict, match="changed since"):  # what cat saw before is not what stands
            await bench.runner.decide(CAT, waiting.approval_id, "approve", seen=first.binding)
        await bench.runner.decide(CAT, waiting.approval_id, "approve", seen=second.binding)
        assert await finished(bench, waiting.run_id) == "completed"
        assert await tickets(bench) == ["Scanner"]
        assert "approval.first_voided" in await actions(bench)
        another = await asked(bench)
        await bench.runner.decide(CAT, another.approval_id, "approve")
        assert (await bench.runner.decide(DAN, another.approval_id, "deny")).state == "denied"
        assert await finished(bench, another.run_id) == "completed"
        assert await tickets(bench) == ["Scanner"]


async def test_only_those_whom_the_first_fitting_rule_names_decide(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    rules = ApprovalConfig.model_validate(
        {
            "users": ["nobody"],
            "rules": [
                {"tenants": ["umbrella"], "groups": ["others"]},
                {"tools": ["create_ticket"], "risks": ["write"], "groups": ["leads"]},
                {"groups": ["others"]},
            ],
        }
    )
    async with lite(tmp_path, [TICKET, "Done."], embedder, rules=rules) as bench:
        waiting = await asked(bench)
        owner = Principal("acme", "root", frozenset({"owner"}))
        for who in (DAN, owner):
            with pytest.raises(Forbidden, match="not among those who decide on create_ticket"):
                await bench.runner.decide(who, waiting.approval_id, "approve")
        assert (await bench.runner.decide(CAT, waiting.approval_id, "approve")).decided_by == "cat"
        assert await finished(bench, waiting.run_id) == "completed"


@pytest.mark.parametrize("by_shell", [False, True])
async def test_a_run_that_waited_over_a_change_of_its_graph_ends_and_says_so(
    tmp_path: Path, embedder: MiniLmEmbedder, by_shell: bool
) -> None:
    async with lite(tmp_path, [TICKET], embedder) as bench:
        waiting = await asked(bench)
        if by_shell:
            await bench.runner.decisions.decide(CAT, waiting.approval_id, "approve")
        async with bench.store.database.write() as connection:
            await connection.execute(update(runs).values(graph_fingerprint="000000000000"))
        if by_shell:
            await bench.runner.go_on()
        else:
            with pytest.raises(GraphChanged, match="000000000000"):
                await bench.runner.decide(CAT, waiting.approval_id, "approve")
        card = await bench.runner.card(ANN, waiting.run_id)
        assert (card.status, card.error and card.error.code, card.safe_answer) == ("failed", "graph_changed", SAFE)
        assert (await bench.store.approvals.get(waiting.approval_id, "acme")).state == "void"
        assert await raised(bench) == ["the graph has changed"]
        assert (await actions(bench))[-2:] == ["approval.voided", "escalation.opened"]
        assert await tickets(bench) == []
        with pytest.raises(Conflict):
            await bench.runner.decide(CAT, waiting.approval_id, "approve")


async def test_a_call_that_nobody_decides_is_warned_of_once_denied_and_handed_to_people(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    later = timedelta(0)

    def clock() -> datetime:
        return now() + later

    rules = ApprovalConfig(
        expires_after_s=600, warn_before_s=60, on_expiry="escalate", webhook_url_env="HOOK_OF_APPROVALS"
    )
    async with lite(tmp_path, [TICKET, "Nobody was there."], embedder, clock=clock, rules=rules) as bench:
        waiting = await asked(bench)
        assert round((waiting.expires_at - waiting.created_at).total_seconds()) == 600
        for passed_s in (8 * 60, 9 * 60 + 5, 9 * 60 + 10, 11 * 60):
            later = timedelta(seconds=passed_s)
            await bench.runner.go_on()
        assert await finished(bench, waiting.run_id) == "completed"
        assert await tickets(bench) == []
        assert await raised(bench) == ["nobody decided"]
        told = [notice.kind for notice in await bench.store.notices.waiting(100)]
        assert told == ["approval.waiting", "approval.expiring", "approval.expired", "escalation.opened"]


async def test_a_cancelled_runs_call_is_void(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [TICKET], embedder) as bench:
        waiting = await asked(bench)
        await bench.runner.cancel(ANN, waiting.run_id)
        card = await bench.runner.card(ANN, waiting.run_id)
        assert (card.status, card.pending_approval) == ("cancelled", None)
        assert (await bench.store.approvals.list("acme")).items == []
        assert (await bench.store.approvals.get(waiting.approval_id, "acme")).state == "void"
        with pytest.raises(Conflict):
            await bench.runner.cancel(ANN, waiting.run_id)


async def test_t08_a_run_that_did_not_pause_is_not_resumed_and_none_begins_with_nothing(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, ["Hello."], embedder) as bench:
        answer = await bench.ask("hello", mode="agent")
        until, ids = now() + timedelta(hours=1), (answer.run_id, "0" * 32, "acme", "ann")
        stray = await bench.store.approvals.create(*ids, "create_ticket", {"title": "x", "body": "y"}, "write", until)
        with pytest.raises(Conflict, match="does not wait"):
            await bench.runner.decide(CAT, stray.approval_id, "approve")
        await bench.runner.decisions.decide(CAT, stray.approval_id, "approve")  # as from the shell
        await bench.runner.go_on()
        assert len(list(bench.gateway.requests)) == 1
        assert [event.type for event in answer.events] == [
            event.type for event in await bench.store.runs.events(answer.run_id, "acme")
        ]
        assert await tickets(bench) == []


async def test_t09_a_new_message_takes_the_place_of_what_its_conversation_waits_for(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, [TICKET, "As you like."], embedder) as bench:
        waiting = await asked(bench)
        conversation_id = (await bench.runner.card(ANN, waiting.run_id)).conversation_id
        answer = await bench.ask("never mind", mode="agent", conversation_id=conversation_id)
        assert answer.types[-1] == "run.completed"
        old = await bench.runner.card(ANN, waiting.run_id)
        assert (old.status, old.error and old.error.message) == (
            "cancelled",
            "a newer message of its conversation took its place",
        )
        void = await bench.store.approvals.get(waiting.approval_id, "acme")
        assert (void.state, void.comment) == ("void", "a newer message of its conversation took its place")
        with pytest.raises(Conflict):
            await bench.runner.decide(CAT, waiting.approval_id, "approve")
        assert await tickets(bench) == []


async def test_edits_to_no_arguments_at_all_are_edits(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    times = Say(tool_calls=(ToolProposal("x", "create_ticket", {"title": "Printer", "body": "Broken."}),))
    async with lite(tmp_path, [times, "Done."], embedder) as bench:
        waiting = await asked(bench)
        with pytest.raises(PilothouseError) as refused:
            await bench.runner.decide(CAT, waiting.approval_id, "approve", arguments={})
        assert refused.value.field == "arguments"


async def test_a_run_that_fails_shows_the_safe_sentence_and_is_handed_to_people_without_its_cause(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    def breaks(_: object) -> str:
        raise RuntimeError("canary-of-a-stack-trace")

    async with lite(tmp_path, breaks, embedder) as bench:
        answer = await bench.ask("hello")
        card = await bench.runner.card(ANN, answer.run_id)
        assert (card.status, card.answer, card.safe_answer) == ("failed", "", SAFE)
        (escalation,) = (await bench.store.escalations.list("acme")).items
        assert (escalation.run_id, escalation.reason, escalation.state) == (answer.run_id, "the run failed", "open")
        assert "canary" not in f"{card} {escalation} {answer.events}"
