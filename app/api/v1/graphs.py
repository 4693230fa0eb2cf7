"""A graph behind OpenAI's wire: `model: "pilothouse/rag"` runs it with the last user message as the question.

The client keeps the conversation, so each call is a conversation of its own. Citations and the run's id come beside the
answer in a field of ours, `pilothouse`, which clients that do not know it pass over.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import orjson

from app.api.v1.door import DONE, Asked, Streamed, Whole
from app.api.v1.shapes import ChatBody, chunk_json, usage_json
from app.config.load import RESERVED
from app.records import AnswerCard, RunRequest
from app.runner import Runner
from graphs.errors import Invalid, Missing, PilothouseError, UpstreamError
from graphs.types import Usage

MODES: Final = ("chat", "rag", "agent")


class GraphFailed(UpstreamError):
    """The run ended without an answer; its own code is in the message."""

    code = "run_failed"


class GraphCalls:
    """Runs graphs for `/v1`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(RESERVED + mode for mode in MODES)

    async def answer(self, asked: Asked, body: ChatBody) -> Whole | Streamed:
        """Raises Missing for a graph that does not exist, Invalid for a body a graph cannot serve."""
        request = self._request(body, asked.payer.feature)
        run_id = await self._runner.start(asked.principal, request, admitted=True)
        if body.stream:
            return Streamed(self._frames(asked, run_id, body))
        async with aclosing(self._runner.events(asked.principal, run_id)) as events:
            async for _ in events:
                pass
        card = await self._runner.card(asked.principal, run_id)
        _check(card)
        return Whole(orjson.dumps(_answer_json(card, str(body.model))))

    def _request(self, body: ChatBody, feature: str) -> RunRequest:
        mode = str(body.model).removeprefix(RESERVED)
        if mode not in MODES:
            raise Missing(f"there is no graph {body.model}", field="model")
        if body.choices != 1:
            raise Invalid("a graph gives one choice", field="n")
        last = body.raw["messages"][-1]
        if last["role"] != "user" or not body.texts:
            raise Invalid("the last message must be the user's question", field="messages")
        return RunRequest(body.texts[-1], mode, feature=feature)  # type: ignore[arg-type]

    async def _frames(self, asked: Asked, run_id: str, body: ChatBody) -> AsyncGenerator[bytes, None]:
        name, answer_id, created = str(body.model), f"chatcmpl-{run_id}", int(time.time())

        def frame(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
            return b"data: " + orjson.dumps(chunk_json(answer_id, created, name, delta, finish) | more) + b"\n\n"

        role: dict[str, Any] = {"role": "assistant"}
        async with aclosing(self._runner.events(asked.principal, run_id)) as events:
            async for event in events:
                if event.type == "message.delta":
                    yield frame(role | {"content": event.data["text"]})
                    role = {}
        card = await self._runner.card(asked.principal, run_id)
        _check(card)
        yield frame({}, "stop", pilothouse=_ours(card))
        if body.with_usage:
            usage = usage_json(Usage(card.usage.input_tokens, card.usage.output_tokens))
            yield frame({}, None, choices=[], usage=usage)
        yield DONE


def _check(card: AnswerCard) -> None:
    if card.status == "waiting":
        raise GraphFailed(f"run {card.request_id} waits for an approval, which this API cannot give")
    if card.error is not None:
        raise GraphFailed(f"the run failed with {card.error.code}: {card.error.message}")
    if card.status not in {"completed", "blocked"}:
        raise PilothouseError(f"the run ended as {card.status}")


def _ours(card: AnswerCard) -> dict[str, Any]:
    return {
        "requestId": card.request_id,
        "validation": card.validation,
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
