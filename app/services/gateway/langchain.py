"""Any langchain-core chat model as a provider, for the vendors whose wire is not spoken here.

The integration's own retries are switched off: the gateway is the one layer that may. A model without an async stream
of its own is read in a thread, which cannot be stopped; its answer is thrown away then.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from importlib import import_module
from typing import Any, Final, Self, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from app.config.schema import ModelConfig, ProviderConfig
from app.services.gateway.langchain_errors import error_of
from app.services.gateway.langchain_messages import to_langchain, tool_to_langchain, usage_from_langchain
from app.services.gateway.tokens import estimate_tokens, estimated_usage
from app.services.gateway.wire import PartialCall
from graphs.errors import Invalid, UpstreamError
from graphs.types import Completion, Delta, FinishReason, ModelInfo, ModelRequest, ToolProposal

T = TypeVar("T")

# Inside a graph LangChain would take the graph's callbacks for its own and tell every token twice.
_ALONE: Final = RunnableConfig(callbacks=[])

# Under which names integrations keep what a request may set, the most usual first.
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "max_tokens": ("max_tokens", "max_output_tokens", "max_completion_tokens", "num_predict", "max_new_tokens"),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
}
_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
}


class LangChainProvider:
    """One chat model. `secret` is the key that must not show in the causes of errors."""

    def __init__(
        self, info: ModelInfo, model: BaseChatModel, *, secret: str = "", count: Callable[[str], int] = estimate_tokens
    ) -> None:
        self.info = info
        self._model, self._secret, self._count = model, secret, count
        self._waits: set[asyncio.Timeout] = set()
        self._closed = False

    @classmethod
    def configured(cls, info: ModelInfo, place: ProviderConfig, model: ModelConfig, key: str) -> Self:
        """The class that `place.chat_model` names, made with its `arguments`. Raises Invalid."""
        made: type[BaseChatModel] = load_class(place.chat_model or "", BaseChatModel)
        given = arguments(made.model_fields, place, model, key)
        try:
            chat_model = made(**given)
        except Exception as error:  # of a vendor's constructor, which may raise anything it likes
            raise Invalid(f"{place.chat_model} cannot be made ({type(error).__name__})", field="chat_model") from error
        return cls(info, chat_model, secret=key)

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        answer = _Answer(self.info)
        async with aclosing(self._messages(request)) as messages:
            async for message in messages:
                if text := answer.hear(message):
                    yield Delta(text)
        yield answer.completion(request, self._count)

    async def close(self) -> None:
        """Calls in flight fail; the integration's own connections go with the model."""
        self._closed = True
        for wait in tuple(self._waits):
            wait.reschedule(asyncio.get_running_loop().time())

    async def _messages(self, request: ModelRequest) -> AsyncGenerator[AIMessage, None]:
        """What the model says, in pieces where it can: an answer to a schema comes whole, from LangChain's parser."""
        said = [to_langchain(message) for message in request.messages]
        model = self._limited(request)
        stop: dict[str, Any] = {"stop": list(request.stop)} if request.stop else {}
        if request.response_schema is not None:
            yield await self._structured(model, request, said)
            return
        bound: Runnable[Any, Any] = model
        if request.tools and self.info.native_tools:
            bound = self._bound(model, request)
        async with aclosing(_generator(bound.astream(said, _ALONE, **stop))) as pieces:
            while (piece := await self._wait(lambda: anext(pieces, None))) is not None:
                yield piece

    def _limited(self, request: ModelRequest) -> BaseChatModel:
        """The model with the request's bounds, as far as its class knows them. Always bounded, where it can be."""
        limit = min(request.max_tokens or self.info.max_output_tokens, self.info.max_output_tokens)
        asked = {"max_tokens": limit, "temperature": request.temperature, "top_p": request.top_p}
        fields = type(self._model).model_fields
        update = {
            name: value
            for field, value in asked.items()
            if value is not None and (name := next((each for each in _FIELDS[field] if each in fields), None))
        }
        return self._model.model_copy(update=update)

    def _bound(self, model: BaseChatModel, request: ModelRequest) -> Runnable[Any, Any]:
        choice = {"auto": None, "required": "any"}.get(request.tool_choice, request.tool_choice)
        try:
            return model.bind_tools([tool_to_langchain(spec) for spec in request.tools], tool_choice=choice)
        except NotImplementedError as error:
            raise Invalid(f"{self.info.name} calls no tools: set native_tools to false", field="tools") from error

    async def _structured(self, model: BaseChatModel, request: ModelRequest, said: list[BaseMessage]) -> AIMessage:
        if request.tools:
            raise Invalid(f"{self.info.name} takes tools or a schema for its answer, not both", field="response_format")
        schema = {"title": "answer", "description": "The answer.", **(request.response_schema or {})}
        try:
            chain = model.with_structured_output(schema, include_raw=True)
        except (NotImplementedError, ValueError) as error:
            raise Invalid(f"{self.info.name} cannot answer to a schema", field="response_format") from error
        told = cast("dict[str, Any]", await self._wait(lambda: chain.ainvoke(said, _ALONE)))
        raw = told["raw"]
        if told["parsed"] is None:
            raise UpstreamError(f"{self.info.name} did not answer in the form that it was asked for")
        return AIMessage(
            json.dumps(told["parsed"]), usage_metadata=raw.usage_metadata, response_metadata=raw.response_metadata
        )

    async def _wait(self, call: "Callable[[], Any]") -> Any:
        """One wait for the vendor: what it raises becomes ours, and closing the provider ends it."""
        if self._closed:
            raise UpstreamError(f"{self.info.name} is closed")
        wait = asyncio.timeout(None)
        self._waits.add(wait)
        try:
            async with wait:
                return await call()
        except Exception as error:  # of any vendor's integration: nobody can list its classes
            if self._closed:
                raise UpstreamError(f"{self.info.name} is closed") from error
            told = error_of(self.info.name, error, self._secret)
            raise told from told.__cause__
        finally:
            self._waits.discard(wait)


class _Answer:
    """A completion while its messages arrive: many chunks, or one whole message."""

    def __init__(self, info: ModelInfo) -> None:
        self._info = info
        self._whole: AIMessage | None = None
        self._texts: list[str] = []
        self._finish, self._served = "", ""

    def hear(self, message: AIMessage) -> str:
        """The text that the message adds, often empty."""
        merges = isinstance(self._whole, AIMessageChunk) and isinstance(message, AIMessageChunk)
        self._whole = cast("Any", self._whole) + message if merges else message
        told = message.response_metadata
        # Read from each piece: joined, LangChain strings the same name together twice.
        self._finish = str(next((told[key] for key in _FINISH_KEYS if told.get(key)), self._finish)).lower()
        self._served = str(told.get("model_name") or told.get("model") or self._served)
        if text := str(message.text):
            self._texts.append(text)
        return text

    def completion(self, request: ModelRequest, count: Callable[[str], int]) -> Completion:
        """Raises UpstreamError for an answer of nothing, and for a tool call that cannot be read."""
        if self._whole is None:
            raise UpstreamError(f"{self._info.name} ended its answer without a word")
        text = "".join(self._texts)
        calls = self._calls(self._whole)
        usage = usage_from_langchain(self._whole.usage_metadata)
        if usage is None or (usage.output_tokens == 0 and (text or calls)):
            written = text + "".join(json.dumps(dict(call.arguments)) for call in calls)
            usage = estimated_usage(request.messages, written, count)
        finish = _FINISH.get(self._finish, "unknown")
        return Completion(
            text=text,
            model=self._info.name,
            model_version=self._info.version or self._served or self._info.name,
            provider=self._info.provider,
            usage=usage,
            finish_reason="tool_calls" if calls and finish in {"stop", "unknown"} else finish,
            tool_calls=calls,
        )

    def _calls(self, whole: AIMessage) -> tuple[ToolProposal, ...]:
        if isinstance(whole, AIMessageChunk) and whole.tool_call_chunks:
            # LangChain mends JSON that was cut; half a call is not what the model asked for, so the pieces are read.
            pieces = [
                PartialCall(piece["id"] or "", piece["name"] or "", [piece["args"] or ""])
                for piece in whole.tool_call_chunks
            ]
            return tuple(piece.proposal(self._info.name, number) for number, piece in enumerate(pieces))
        if whole.invalid_tool_calls:
            raise UpstreamError(f"{self._info.name} asked for a tool with arguments that are not JSON")
        return tuple(
            ToolProposal(call["id"] or f"call_{number}", call["name"], call["args"])
            for number, call in enumerate(whole.tool_calls)
        )


_FINISH_KEYS: Final = ("finish_reason", "stop_reason", "done_reason", "stopReason")


def load_class(path: str, base: type) -> Any:
    """The class at "package.module:Class". Raises Invalid where there is none of that base."""
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise Invalid(
            f"there is no {path!r} to import (its package may not be installed)", field="chat_model"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise Invalid(f"{path} is no {base.__name__}", field="chat_model")
    return found


def arguments(
    fields: Mapping[str, Any], place: ProviderConfig, model: ModelConfig, key: str
) -> dict[str, str | int | float | bool | None]:
    """Keyword arguments for a class with these pydantic fields: the file's, and what it says elsewhere under the names
    that all integrations share."""
    known = {*fields, *(field.alias for field in fields.values() if field.alias)}
    usual: dict[str, Any] = {
        "model": model.model,
        "api_key": key or None,
        "base_url": place.base_url,
        "max_retries": 0,
        "stream_usage": True,
    }
    return {name: value for name, value in usual.items() if name in known and value is not None} | place.arguments


async def _generator(pieces: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The same, with a close that reaches its source."""
    async with aclosing(cast("AsyncGenerator[T, None]", pieces)) as items:
        async for item in items:
            yield item
