"""The gateway as a LangChain chat model, for whatever expects one: prebuilt agents, Ragas, notebooks.

Every call is routed, reserved and booked like any other, for the payer that the model was made with.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from operator import itemgetter
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, PrivateAttr

from app.records import Payer
from app.services.gateway.aside import Aside
from app.services.gateway.gateway import NOBODY, ModelGateway
from app.services.gateway.langchain_messages import from_langchain, usage_to_langchain
from graphs.errors import Invalid
from graphs.types import Completion, Delta, ModelRequest, Task, ToolSpec

_CHOICES = {None: "auto", True: "required", False: "none", "any": "required"}
_SETTABLE = frozenset({"model", "task", "max_tokens", "temperature", "top_p"})


class GatewayChatModel(BaseChatModel):
    """`model` is a model or route of the gateway, None for the default of `task`.

    The synchronous calls work where no loop runs: on the loop in which this was made, if it runs in another thread,
    else on one beside. What a gateway opened belongs to one loop, so it is called either way, not both.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    gateway: ModelGateway
    payer: Payer = NOBODY
    model: str | None = None
    task: Task = "chat"
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None

    _aside: Aside = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        try:
            home = asyncio.get_running_loop()
        except RuntimeError:
            home = None
        self._aside = Aside(home)

    @property
    def _llm_type(self) -> str:
        return "pilothouse"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self.model, "task": self.task}

    def get_num_tokens(self, text: str) -> int:
        return self.gateway.count_tokens(text, self.model, self.task)

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """`tool_choice`: auto, none, any or required, or a tool's name."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

    def with_structured_output(
        self, schema: Mapping[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """By the schema of the answer itself, whatever `method` is asked for: every provider here has it."""
        named = convert_to_json_schema(schema if isinstance(schema, type) else dict(schema))
        parser: BaseOutputParser[Any] = JsonOutputParser()
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            parser = PydanticOutputParser(pydantic_object=schema)
        model = self.bind(response_schema=closed(named))
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._aside.run(lambda: self._agenerate(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        completion = await self.gateway.complete(self._request(messages, stop, kwargs), self.payer)
        calls = [{"name": c.name, "args": dict(c.arguments), "id": c.call_id} for c in completion.tool_calls]
        message = AIMessage(
            completion.text,
            tool_calls=calls,
            usage_metadata=usage_to_langchain(completion.usage),
            response_metadata=_metadata(completion),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._aside.iterate(lambda: self._chunks(messages, stop, kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self._chunks(messages, stop, kwargs)) as chunks:
            async for chunk in chunks:
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, asked: Mapping[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        """The answer's texts as they come; its tool calls and usage in the last chunk."""
        async with aclosing(self.gateway.stream(self._request(messages, stop, asked), self.payer)) as items:
            async for item in items:
                if isinstance(item, Delta):
                    yield ChatGenerationChunk(message=AIMessageChunk(content=item.text))
                else:
                    yield ChatGenerationChunk(message=_last(item), generation_info=_metadata(item))

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, asked: Mapping[str, Any]) -> ModelRequest:
        """Raises Invalid for what the gateway cannot carry."""
        said = tuple(map(from_langchain, messages))
        question = next((message.content for message in reversed(said) if message.role == "user"), "")
        settings = {name: getattr(self, name) for name in _SETTABLE} | {
            name: value for name, value in asked.items() if name in _SETTABLE and value is not None
        }
        return replace(
            ModelRequest(messages=said, question=question, stop=tuple(stop or ())),
            tools=tuple(_spec(tool) for tool in asked.get("tools") or ()),
            tool_choice=_choice(asked.get("tool_choice")),
            response_schema=asked.get("response_schema"),
            **settings,
        )


def _last(completion: Completion) -> AIMessageChunk:
    calls = [
        tool_call_chunk(name=call.name, args=json.dumps(dict(call.arguments)), id=call.call_id, index=number)
        for number, call in enumerate(completion.tool_calls)
    ]
    return AIMessageChunk(content="", tool_call_chunks=calls, usage_metadata=usage_to_langchain(completion.usage))


def _metadata(completion: Completion) -> dict[str, Any]:
    return {
        "model_name": completion.model,
        "model_version": completion.model_version,
        "model_provider": completion.provider,
        "finish_reason": completion.finish_reason,
    }


def _spec(tool: Mapping[str, Any]) -> ToolSpec:
    function = tool.get("function", tool)
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolSpec(function["name"], function.get("description", ""), parameters)


def _choice(choice: Any) -> str:
    if isinstance(choice, Mapping):
        choice = choice.get("function", choice).get("name", "auto")
    if choice is not None and not isinstance(choice, str | bool):
        raise Invalid("tool_choice is auto, none, any, or a tool's name", field="tool_choice")
    return _CHOICES.get(choice, str(choice))


def closed(schema: Any) -> Any:
    """The schema with every object closed that does not say otherwise: only closed ones do vendors enforce."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    inner = {
        key: {name: closed(value) for name, value in item.items()} if key in {"properties", "$defs"} else closed(item)
        for key, item in schema.items()
        if key not in {"default", "enum", "const", "examples"}
    }
    kept = {key: item for key, item in schema.items() if key in {"default", "enum", "const", "examples"}}
    if schema.get("type") == "object" and schema.get("properties"):
        return {"additionalProperties": False} | inner | kept
    return inner | kept
