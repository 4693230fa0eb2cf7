"""A graph behind OpenAI's wire: `model: "pilothouse/rag"` runs it with the last user message as the question.

The client keeps the conversation, so each call is a conversation of its own. Citations and the run's id come beside the
answer in a field of ours, `pilothouse`, which clients that do not know it pass over.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final

from app.api.v1.door import Asked
from app.api.v1.shapes import ChatBody, chunk_json, texts_of, usage_json
from app.api.v1.typed import schema_of
from app.config.load import RESERVED
from app.records import AnswerCard, RunRequest
from app.runner import Runner
from app.services.gateway.provider import WireEnd, WireEvent
from graphs.errors import (
    AnswerNotValid,
    Conflict,
    Forbidden,
    Invalid,
    Missing,
    PilothouseError,
    PromptTooLong,
    QuotaExhausted,
    UpstreamError,
)
from graphs.types import Usage

MODES: Final = ("chat", "rag", "agent")


class GraphFailed(UpstreamError):
    """The run ended without an answer; its own code is in the message."""

    code = "run_failed"


_BY_CODE: Final[Mapping[str, type[PilothouseError]]] = {each.code: each for each in (PromptTooLong, AnswerNotValid)}
_BY_KIND: Final[Mapping[str, type[PilothouseError]]] = {
    "invalid": Invalid,
    "denied": Forbidden,
    "exhausted": QuotaExhausted,
}


class GraphCalls:
    """Runs graphs for `/v1`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(RESERVED + mode for mode in MODES)

    async def items(self, asked: Asked, body: ChatBody) -> AsyncGenerator[WireEvent | WireEnd, None]:
        """The answer's events, or the whole, then the end. A caller that leaves cancels the run.

        Raises Missing for a graph that does not exist, Invalid for a body a graph cannot serve, GraphFailed.
        """
        request = _request(body, asked.payer.feature)
        run_id = await self._runner.start(asked.principal, request, admitted=True)
        try:
            async with aclosing(self._events(asked, body, run_id)) as events:
                async for event in events:
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            # Nobody comes back for an answer on this wire, so nothing waits for a reader as it does elsewhere.
            stopping = asyncio.create_task(self._stop(asked, run_id))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)
            raise

    async def _stop(self, asked: Asked, run_id: str) -> None:
        with suppress(Conflict):  # it ended in the same moment
            await self._runner.cancel(asked.principal, run_id)

    async def _events(self, asked: Asked, body: ChatBody, run_id: str) -> AsyncGenerator[WireEvent | WireEnd, None]:
        name, answer_id, created = str(body.model), f"chatcmpl-{run_id}", int(time.time())

        def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> WireEvent:
            return WireEvent(b"", chunk_json(answer_id, created, name, delta, finish) | more, "", True)

        role: dict[str, Any] = {"role": "assistant"}
        if body.stream:
            async with aclosing(self._runner.events(asked.principal, run_id)) as events:
                async for event in events:
                    if event.type == "message.delta":
                        yield chunk(role | {"content": event.data["text"]})
                        role = {}
        card = await (self._runner.card if body.stream else self._runner.attend)(asked.principal, run_id)
        _check(card)
        usage = Usage(card.usage.input_tokens, card.usage.output_tokens, card.usage.estimated)
        if not body.stream:
            yield WireEvent(b"", _answer_json(card, name), card.answer, True)
        else:
            if role and card.answer:  # an answer that came in no pieces: a guard's, or a safe one
                yield chunk(role | {"content": card.answer})
            yield chunk({}, "stop", pilothouse=_ours(card))
            if body.with_usage:
                yield chunk({}, None, choices=[], usage=usage_json(usage))
        yield WireEnd(usage, "stop", card.model_version)


def _request(body: ChatBody, feature: str) -> RunRequest:
    mode = str(body.model).removeprefix(RESERVED)
    if mode not in MODES:
        raise Missing(f"there is no graph {str(body.model)[:128]}", field="model")
    if body.choices != 1:
        raise Invalid("a graph gives one choice", field="n")
    if body.raw.get("tools"):
        raise Invalid("a graph has tools of its own and takes no others", field="tools")
    schema = schema_of(body.raw.get("response_format"))
    last = body.raw["messages"][-1]
    question = "".join(texts_of(len(body.raw["messages"]) - 1, last))
    if last["role"] != "user" or not question:
        raise Invalid("the last message must be the user's question", field="messages")
    return RunRequest(question, mode, feature=feature, response_schema=schema)  # type: ignore[arg-type]


def _check(card: AnswerCard) -> None:
    if card.status == "waiting":
        raise GraphFailed(f"run {card.request_id} waits for an approval, which this API cannot give")
    if (error := card.error) is not None:
        failed = _BY_CODE.get(error.code) or _BY_KIND.get(error.kind, GraphFailed)
        raise failed(f"the run failed with {error.code}: {error.message}", retry_after_s=error.retry_after_s)
    if card.status not in {"completed", "blocked"}:
        raise PilothouseError(f"the run ended as {card.status}")


def _ours(card: AnswerCard) -> dict[str, Any]:
    return {
        "requestId": card.request_id,
        "validation": card.validation,
        "cached": card.cached,
        "citations": [citation.model_dump(mode="json", by_alias=True) for citation in card.citations],
    }


def _answer_json(card: AnswerCard, model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": card.answer, "refusal": None}
    return {
        "id": f"chatcmpl-{card.request_id}",
        "object": "chat.completion",
        "created": int(card.created_at.timestamp()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage_json(Usage(card.usage.input_tokens, card.usage.output_tokens)),
        "pilothouse": _ours(card),
    }
