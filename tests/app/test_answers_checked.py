"""What becomes of an answer that its checks do not pass, through the real runner and graphs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.config.answers import AnswersConfig
from app.services.gateway.scripted import Say
from app.services.guardrails.guard import PatternGuard
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.agent.nodes import answer
from graphs.agent.state import AgentState, Turn
from graphs.events import Event, Said
from graphs.policy import AnswerPolicy
from graphs.refusal import REFUSAL
from graphs.types import Passage, ToolProposal, ToolResult
from tests.app.lite import ANN, EVE, Answer, lite

TEXT = "A key is revoked with DELETE /api/ai/keys. A revoked key stops working within five seconds."
PASSAGE = Passage("c1", "keys", "Keys", TEXT, 0, len(TEXT), 1.0, "docs")
SUPPORTED, INVENTED = "A revoked key stops working within five seconds.", "The company was founded in Oslo in 1931."
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["title", "count"],
}
RULE = "tests.app.own_rules:no_discount_promises"


def policy(**given: Any) -> AnswersConfig:
    return AnswersConfig.model_validate(given)


def card_of(answer: Answer) -> Any:
    return answer.events[-1].data["card"]


def verdicts(answer: Answer) -> list[tuple[str, str, list[str]]]:
    return [
        (verdict["guard"], verdict["action"], verdict["reasons"])
        for verdict in card_of(answer)["verdicts"]
        if verdict["stage"] == "output"
    ]


@pytest.mark.parametrize(
    ("unsupported", "said", "seen"),
    [
        ("flag", f"{SUPPORTED} {INVENTED}", ("patterns", "allow", [])),
        ("remove", SUPPORTED, ("support", "redact", ["unsupported"])),
        ("refuse", REFUSAL, ("support", "block", ["unsupported"])),
    ],
)
async def test_an_unsupported_sentence_is_flagged_removed_or_refused(
    tmp_path: Path, embedder: MiniLmEmbedder, unsupported: str, said: str, seen: Any
) -> None:
    async with lite(
        tmp_path, [f"{SUPPORTED} {INVENTED}"], embedder, passages=[PASSAGE], answers=policy(unsupported=unsupported)
    ) as bench:
        answer = await bench.ask("How long does a revoked key work?", mode="rag")
    assert answer.text == card_of(answer)["answer"] == said
    assert seen in verdicts(answer)
    assert [each["supported"] for each in card_of(answer)["sentences"]] == {
        "flag": [True, False],
        "remove": [True],
        "refuse": [],
    }[unsupported]
    assert card_of(answer)["answered"] is (unsupported != "refuse")


async def test_what_may_be_taken_back_is_not_said_before_it_is_checked(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(
        tmp_path,
        [SUPPORTED, SUPPORTED],
        embedder,
        passages=[PASSAGE],
        answers=policy(tenants={"acme": {"unsupported": "remove"}}),
    ) as bench:
        held = await bench.ask("How long does a revoked key work?", mode="rag")
        streamed = await bench.ask("How long does a revoked key work?", mode="rag", who=EVE)
    assert held.types.count("message.delta") == 1
    assert held.types.index("message.delta") == held.types.index("validation.completed") - 1
    assert streamed.types.count("message.delta") > 1
    assert held.text == streamed.text == SUPPORTED


async def test_a_run_that_fails_before_its_checks_gives_nothing_of_what_was_held(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, ["No JSON.", "Still none."], embedder) as bench:
        answer = await bench.ask("Count the keys", response_schema=SCHEMA)
    assert answer.types[-1] == "run.failed"
    assert answer.events[-1].data["error"]["code"] == "answer_not_valid"
    assert answer.text == card_of(answer)["answer"] == ""


async def test_an_answer_that_misses_its_schema_is_mended_once_and_paid(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    good = json.dumps({"title": "Keys", "count": 3})
    async with lite(tmp_path, ["There are three.", f"```json\n{good}\n```", good], embedder) as bench:
        mended = await bench.ask("Count the keys", response_schema=SCHEMA)
        at_once = await bench.ask("Count the keys", response_schema=SCHEMA)
        first, second, third = bench.gateway.requests
    assert mended.text == at_once.text == good
    assert ("schema", "redact", ["mended"]) in verdicts(mended)
    assert ("schema", "allow", []) in verdicts(at_once)
    assert (card_of(mended)["usage"]["calls"], card_of(at_once)["usage"]["calls"]) == (2, 1)
    assert [request.response_schema for request in (first, second, third)] == [SCHEMA] * 3
    assert "it is not JSON" in second.messages[-1].content


async def test_what_a_json_answer_says_is_held_to_the_passages_too(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    schema = {"type": "object", "properties": {"says": {"type": "string"}}, "required": ["says"]}
    lines = [json.dumps({"says": said}) for said in (SUPPORTED, INVENTED)]
    async with lite(tmp_path, lines, embedder, passages=[PASSAGE], answers=policy(unsupported="refuse")) as bench:
        good, bad = [
            await bench.ask("How long does a revoked key work?", mode="rag", response_schema=schema) for _ in lines
        ]
    assert (good.text, bad.text) == (lines[0], REFUSAL)
    assert card_of(good)["citations"]


async def test_an_answer_that_a_rule_refuses_never_leaves_and_a_person_hears_of_it(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    answers = policy(rules=[RULE], refused_answer="Ask our sales team.")
    async with lite(tmp_path, ["Sure, 20% off for you!", "No, the price stands."], embedder, answers=answers) as bench:
        refused = await bench.ask("May I have a discount?")
        passed = await bench.ask("May I have a discount?")
        raised = (await bench.store.escalations.list(ANN.tenant_id)).items
    assert (refused.text, card_of(refused)["status"]) == ("Ask our sales team.", "blocked")
    assert ("rules", "block", ["no_discount_promises"]) in verdicts(refused)
    assert "20%" not in json.dumps([event.data for event in refused.events])
    assert (passed.text, card_of(passed)["status"]) == ("No, the price stands.", "completed")
    assert [(each.reason, each.detail) for each in raised] == [("policy stopped the run", "no_discount_promises")]


async def test_a_rule_that_only_flags_lets_the_stream_go(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(
        tmp_path, ["Sure, 20% off for you!"], embedder, answers=policy(rules=[RULE], rules_then="flag")
    ) as bench:
        answer = await bench.ask("May I have a discount?")
    assert answer.types.count("message.delta") > 1
    assert ("rules", "flag", ["no_discount_promises"]) in verdicts(answer)


async def test_what_a_stream_has_replaced_stands_on_the_card(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [Say(pieces=("Pay with 4111 1111 ", "1111 1111 now."))], embedder) as bench:
        answer = await bench.ask("How do I pay?")
    assert answer.text == "Pay with \u2039card number removed\u203a now."
    assert verdicts(answer) == [("patterns", "redact", ["card_number"])]


async def test_what_a_tool_says_leaves_through_the_output_patterns(embedder: MiniLmEmbedder) -> None:
    """A model without tool calls closes a run in the tool's own words, which no model has written."""
    result = ToolResult("c", "calculator", "ok", "4111 1111 1111 1111")
    turn = Turn((ToolProposal("c", "calculator", {}),), results=(result,))
    written: list[Event] = []
    context = SimpleNamespace(guard=PatternGuard(embedder), answers=AnswerPolicy(), shape=None)
    runtime = SimpleNamespace(context=context, stream_writer=written.append)
    state: AgentState = {"question": "Add one", "history": (), "turns": (turn,)}
    update = await answer(state, runtime)  # type: ignore[arg-type]
    assert [event.text for event in written if isinstance(event, Said)] == ["\u2039card number removed\u203a."]
    assert update.get("redacted") == ("card_number",)


async def test_a_link_policy_is_the_tenants_own(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    said = "See [the page](https://evil.example/?d=1) and https://docs.example/a."
    answers = policy(tenants={"acme": {"links": "listed", "link_hosts": ["docs.example"]}})
    async with lite(tmp_path, [said, said], embedder, answers=answers) as bench:
        listed, kept = await bench.ask("Where?"), await bench.ask("Where?", who=EVE)
    assert listed.text == "See [the page] (\u2039link removed\u203a) and https://docs.example/a."
    assert kept.text == said
