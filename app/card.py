"""The answer card, and the events' data, from a graph's state: pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from app.records import (
    AnswerCard,
    CardCitation,
    CardError,
    CardOrigin,
    CardSearch,
    CardSentence,
    CardStation,
    CardTool,
    CardUsage,
    CardVerdict,
    Mode,
    RunStatus,
)
from graphs.agent.state import Turn
from graphs.errors import PilothouseError
from graphs.events import Continued, Event, Proposed, Ran, Retrieved, Said
from graphs.rag.wording import Variants, Wording
from graphs.taint import least
from graphs.types import Message, Passage, ToolResult, Trust

SUMMARY_CHARS = 500


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the runner knows of a run beside the graph's state."""

    request_id: str
    conversation_id: str
    mode: Mode
    created_at: datetime
    graph_fingerprint: str
    model: str = ""
    model_version: str = ""
    provider: str = ""
    usage: CardUsage = field(default_factory=CardUsage)
    stations: tuple[CardStation, ...] = ()
    latency_ms: float = 0.0
    reasons: tuple[str, ...] = ()
    degraded: str = ""
    without_model: bool = False
    cached: bool = False
    continued_by: tuple[str, ...] = ()


def card(
    facts: RunFacts,
    state: Mapping[str, Any],
    *,
    status: RunStatus,
    error: PilothouseError | None = None,
    approval_id: str | None = None,
) -> AnswerCard:
    """The card of a run in that status; a state that a failure cut short gives the part that is there."""
    passages: Sequence[Passage] = state.get("passages", ())
    stages = ("input_verdicts", "read_verdicts", "output_verdicts")
    verdicts = [verdict for stage in stages for verdict in state.get(stage, ())]
    return AnswerCard(
        request_id=facts.request_id,
        conversation_id=facts.conversation_id,
        mode=facts.mode,
        status=status,
        answer="" if state.get("held") and "validation" not in state else state.get("answer", ""),
        answered=bool(state.get("answered", False)),
        citations=tuple(CardCitation(**asdict(citation)) for citation in state.get("citations", ())),
        sentences=tuple(CardSentence(**asdict(sentence)) for sentence in state.get("sentences", ())),
        tools=tools(state.get("turns", ())),
        verdicts=tuple(CardVerdict(**asdict(verdict)) for verdict in verdicts),
        pending_approval=approval_id,
        search=_search(state),
        retrieved_chunk_ids=tuple(passage.chunk_id for passage in passages),
        prompt_version=state.get("prompt_version", ""),
        graph_fingerprint=facts.graph_fingerprint,
        model=facts.model,
        model_version=facts.model_version,
        provider=facts.provider,
        index_version=state.get("index_version", ""),
        embedder=state.get("embedder", ""),
        stations=facts.stations,
        latency_ms=facts.latency_ms,
        usage=facts.usage,
        reasons=facts.reasons,
        degraded=facts.degraded,
        without_model=facts.without_model,
        cached=facts.cached,
        continued_by=facts.continued_by,
        validation=state.get("validation", ""),
        trust=_trust(state),
        error=None if error is None else card_error(error),
        created_at=facts.created_at,
    )


def _trust(state: Mapping[str, Any]) -> Trust:
    """That of the least trusted text which the answer may be made of."""
    history: Sequence[Message] = state.get("history", ())
    passages: Sequence[Passage] = state.get("passages", ())
    earlier = (turn.trust for turn in history if turn.role != "user")
    return least(("tenant", state.get("read_trust", "tenant"), *earlier, *(passage.trust for passage in passages)))


def searched(wording: Wording, variants: Variants, reranked_by: str = "", not_reranked: str = "") -> CardSearch:
    return CardSearch(
        query=wording.query,
        rewritten_by="" if wording.by == "user" else wording.by,
        rewrite_failed=wording.failed,
        rewrite_prompt=wording.prompt_version,
        variants=variants.texts,
        no_variants=variants.missing,
        variants_prompt=variants.prompt_version,
        reranked_by=reranked_by,
        not_reranked=not_reranked,
    )


def _search(state: Mapping[str, Any]) -> CardSearch | None:
    if "wording" not in state:
        return None
    variants = state.get("variants", Variants())
    return searched(state["wording"], variants, state.get("reranked_by", ""), state.get("not_reranked", ""))


def card_error(error: PilothouseError) -> CardError:
    return CardError(kind=error.kind, code=error.code, message=error.message, retry_after_s=error.retry_after_s)


def tools(turns: Sequence[Turn]) -> tuple[CardTool, ...]:
    """Every call the model asked for and what became of it; `waiting` while nothing has."""
    results = {result.call_id: result for turn in turns for result in turn.results}
    return tuple(
        CardTool(
            call_id=proposal.call_id,
            name=proposal.name,
            arguments=dict(proposal.arguments),
            status=results[proposal.call_id].status if proposal.call_id in results else "waiting",
            summary=_summary(results.get(proposal.call_id)),
            risk=ruling.risk,
            ruling=ruling.then,
            reasons=ruling.reasons,
            origins=tuple(CardOrigin(**asdict(origin)) for origin in ruling.origins),
        )
        for turn in turns
        for proposal, ruling in zip(turn.proposals, turn.rulings, strict=True)
    )


def _summary(result: ToolResult | None) -> str:
    return "" if result is None else result.content[:SUMMARY_CHARS]


def event(happened: Event) -> tuple[str, dict[str, Any]]:
    """Type and data of the public event for what a node wrote."""
    match happened:
        case Said(text):
            return "message.delta", {"text": text}
        case Continued(model):
            return "message.continued", {"model": model}
        case Retrieved(passages, version):
            return "retrieval.completed", {"passages": [_passage(item) for item in passages], "indexVersion": version}
        case Proposed(proposal, ruling):
            return "tool.proposed", {
                "callId": proposal.call_id,
                "name": proposal.name,
                "arguments": dict(proposal.arguments),
                "risk": ruling.risk,
                "ruling": ruling.then,
                "reasons": list(ruling.reasons),
                "origins": [asdict(origin) for origin in ruling.origins],
            }
        case Ran(result):
            return "tool.completed", {
                "callId": result.call_id,
                "name": result.name,
                "status": result.status,
                "summary": _summary(result),
            }
        case _:
            return "validation.completed", {
                "citations": [
                    CardCitation(**asdict(item)).model_dump(mode="json", by_alias=True) for item in happened.citations
                ],
                "sentences": [
                    CardSentence(**asdict(item)).model_dump(mode="json", by_alias=True) for item in happened.sentences
                ],
                "validation": happened.validation,
            }


def _passage(passage: Passage) -> dict[str, Any]:
    return {
        "chunkId": passage.chunk_id,
        "documentId": passage.document_id,
        "title": passage.title,
        "heading": passage.heading,
        "text": passage.text,
        "start": passage.start,
        "end": passage.end,
        "score": passage.score,
        "collection": passage.collection,
    }
