"""One question and what became of it, as the transcript shows it: from a stored run, or from events as they arrive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from app.console.advice import Advice, advice
from app.console.prose import prose
from app.console.view import draw
from app.records import AnswerCard, Mode, RunEvent
from app.services.store.records import ApprovalRecord, FeedbackRecord, RunRecord

_FIRST_PHASE: Final[Mapping[Mode, str]] = {
    "chat": "Thinking",
    "rag": "Searching the sources",
    "agent": "Choosing a tool",
}


@dataclass(slots=True)
class Turn:
    """Grows by `take`; `card` is the truth once the run has ended or waits, and then replaces what streamed."""

    question: str
    mode: Mode
    run_id: str = ""
    conversation_id: str = ""
    text: str = ""
    phase: str = ""
    passages: Sequence[Mapping[str, Any]] = ()
    card: AnswerCard | None = None
    approval: ApprovalRecord | None = None
    feedback: FeedbackRecord | None = None
    last_number: int = 0

    @classmethod
    def of(
        cls, run: RunRecord, approval: ApprovalRecord | None = None, feedback: FeedbackRecord | None = None
    ) -> "Turn":
        return cls(
            question=run.message,
            mode=run.mode,
            run_id=run.run_id,
            conversation_id=run.conversation_id or "",
            card=run.card,
            approval=approval,
            feedback=feedback,
            phase=_FIRST_PHASE[run.mode],
        )

    @property
    def ended(self) -> bool:
        return self.card is not None and self.card.status != "running"

    @property
    def failure(self) -> Advice | None:
        return None if self.card is None else advice(self.card)

    @property
    def answer(self) -> Markup:
        if self.card is None or not self.card.answer:
            return prose(self.text)
        return prose(self.card.answer, self.card.sentences, self.card.citations)

    @property
    def unsupported(self) -> int:
        return 0 if self.card is None else sum(not sentence.supported for sentence in self.card.sentences)

    def take(self, event: RunEvent) -> None:
        self.last_number = max(self.last_number, event.number)
        data = event.data
        match event.type:
            case "run.started":
                self.run_id, self.conversation_id = str(data["requestId"]), str(data["conversationId"])
                self.phase = _FIRST_PHASE[self.mode]
            case "retrieval.completed":
                self.passages = [dict(passage) for passage in data["passages"]]
                count = len(self.passages)
                self.phase = f"Reading {count} passage{'' if count == 1 else 's'}"
            case "message.delta":
                self.text += str(data["text"])
            case "tool.proposed":
                self.phase = f"Proposing {data['name']}"
            case "tool.completed":
                self.phase = f"Reading the result of {data['name']}"
            case "validation.completed":
                self.phase = "Checking the answer against its sources"
            case "run.completed" | "run.failed" | "approval.required":
                if data.get("card"):
                    self.card = AnswerCard.model_validate(data["card"])

    def drawn(self) -> Markup:
        return draw("turn", turn=self)

    def drawn_reply(self) -> Markup:
        """Without the question and without links to where it is already shown: for the run's own page."""
        return draw("reply", turn=self, linked=False)


def drawn_sources(turn: Turn | None) -> Markup:
    """The column beside the answer: its citations first, then what else was read."""
    if turn is None:
        return draw("sources", citations=(), others=(), run_id="", state="none")
    citations = () if turn.card is None else turn.card.citations
    cited = {citation.chunk_id for citation in citations}
    others = [passage for passage in turn.passages if passage["chunkId"] not in cited]
    if turn.mode == "chat":
        state = "chat"
    elif citations or others:
        state = "found"
    elif turn.mode == "agent":
        state = "tools"
    else:
        state = "empty" if turn.ended else "searching"
    return draw("sources", citations=citations, others=others, run_id=turn.run_id, state=state)
