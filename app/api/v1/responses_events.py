"""The answer on the wire of OpenAI's Responses: its object, and the events of its stream."""

import time
from collections.abc import Mapping
from typing import Any

from app.api.v1.refusal import Refusal
from app.api.v1.telling import Part, Teller
from app.ids import new_id
from graphs.types import Usage

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseTeller(Teller):
    """One response. `echo` are the request's fields that its object repeats."""

    def __init__(self, model: str, echo: Mapping[str, Any]) -> None:
        super().__init__()
        self._id, self._created = f"resp_{new_id()}", int(time.time())
        self._model, self._echo = model, dict(echo)
        self._output: list[dict[str, Any]] = []
        self._usage: Usage | None = None
        self._status = "in_progress"
        self._error: dict[str, Any] | None = None
        self._number = 0

    def answer(self) -> dict[str, Any]:
        reason = _INCOMPLETE.get(self.finish) if self._status == "incomplete" else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": self._status,
            "error": self._error,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self._model,
            "output": self._output,
            "usage": None if self._usage is None else _usage(self._usage, self.reasoning_tokens),
            **self._echo,
            **self.extra,
        }

    def _tell(self, kind: str, **fields: Any) -> None:
        super()._tell(kind, **fields, sequence_number=self._number)
        self._number += 1

    def _begin(self) -> None:
        self._tell("response.created", response=self.answer())
        self._tell("response.in_progress", response=self.answer())

    def _opened(self, part: Part) -> None:
        item = _item(part, "in_progress", empty=True)
        self._output.append(item)
        self._tell("response.output_item.added", output_index=part.place, item=item)
        if part.kind != "call":
            self._tell("response.content_part.added", **_where(item, part), content_index=0, part=_content(part))

    def _said(self, part: Part, piece: str) -> None:
        where = _where(self._output[part.place], part)
        match part.kind:
            case "text":
                self._tell("response.output_text.delta", **where, content_index=0, delta=piece, logprobs=[])
            case "refusal":
                self._tell("response.refusal.delta", **where, content_index=0, delta=piece)
            case "call":
                self._tell("response.function_call_arguments.delta", **where, delta=piece)

    def _closed(self, part: Part) -> None:
        done = _item(part, "completed") | {"id": self._output[part.place]["id"]}
        self._output[part.place] = done
        where = _where(done, part)
        match part.kind:
            case "text":
                self._tell("response.output_text.done", **where, content_index=0, text=part.text, logprobs=[])
            case "refusal":
                self._tell("response.refusal.done", **where, content_index=0, refusal=part.text)
            case "call":
                self._tell(
                    "response.function_call_arguments.done", **where, name=part.name, arguments=done["arguments"]
                )
        if part.kind != "call":
            self._tell("response.content_part.done", **where, content_index=0, part=_content(part))
        self._tell("response.output_item.done", output_index=part.place, item=done)

    def _end(self, usage: Usage) -> None:
        self._usage = usage
        self._status = "incomplete" if self.finish in _INCOMPLETE else "completed"
        self._tell(f"response.{self._status}", response=self.answer())

    def _break(self, told: Refusal) -> None:
        self._status = "failed"
        self._error = {"code": told.code, "message": told.message}
        self._tell("response.failed", response=self.answer())


def _where(item: Mapping[str, Any], part: Part) -> dict[str, Any]:
    return {"item_id": item["id"], "output_index": part.place}


def _item(part: Part, status: str, *, empty: bool = False) -> dict[str, Any]:
    if part.kind == "call":
        arguments = "" if empty else part.text or "{}"
        return {
            "type": "function_call",
            "id": f"fc_{new_id()}",
            "call_id": part.call_id,
            "name": part.name,
            "arguments": arguments,
            "status": status,
        }
    content = [] if empty else [_content(part)]
    return {
        "type": "message",
        "id": f"msg_{new_id()}",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _content(part: Part) -> dict[str, Any]:
    if part.kind == "refusal":
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}


def _usage(usage: Usage, reasoning_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
