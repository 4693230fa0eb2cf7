"""What is peculiar to models by LangChain; the rest is in tests/contracts/test_providers.py."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from langchain_core import exceptions as langchain_exceptions
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from app.config.schema import ModelConfig, ProviderConfig
from app.services.gateway.embedding import embedding_info
from app.services.gateway.embedding_langchain import LangChainEmbeddings
from app.services.gateway.langchain import LangChainProvider
from app.services.gateway.langchain_errors import error_of
from graphs.errors import (
    Invalid,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)
from graphs.types import Completion, Delta, Message, ModelInfo, ModelRequest, ToolProposal, ToolSpec, Usage

INFO = ModelInfo("lc", "", "langchain", 8_192, 512, native_tools=True)
ASK = ModelRequest(messages=(Message("user", "Say hello"),))
TOOL = ToolSpec("now", "The time.", {"type": "object", "properties": {}})
HERE = "tests.services.gateway.test_langchain"
MODEL = ModelConfig(provider="p", model="big")


class Chunks(BaseChatModel):
    """Streams the chunks it is given and keeps what it was asked with."""

    chunks: Sequence[Any]
    max_tokens: int | None = None
    temperature: float | None = None
    asked: dict[str, Any] = Field(default_factory=dict)
    left: list[bool] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "chunks"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        raise NotImplementedError

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        return self.bind(tools=tools, tool_choice=tool_choice)

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self.asked.update(kwargs, stop=stop, max_tokens=self.max_tokens, temperature=self.temperature)
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                if isinstance(chunk, asyncio.Event):
                    await chunk.wait()
                    continue
                yield ChatGenerationChunk(message=chunk)
        except (GeneratorExit, asyncio.CancelledError):
            self.left.append(True)
            raise


def chunk(text: str | list[Any] = "", **fields: Any) -> AIMessageChunk:
    return AIMessageChunk(content=text, **fields)


def piece(args: str | None, name: str | None = None, call_id: str | None = None) -> AIMessageChunk:
    call = {"name": name, "args": args, "id": call_id, "index": 0, "type": "tool_call_chunk"}
    return chunk(tool_call_chunks=[call])


def of(*chunks: Any) -> tuple[LangChainProvider, Chunks]:
    model = Chunks(chunks=chunks)
    return LangChainProvider(INFO, model, secret="sk-secret"), model


async def ask(provider: LangChainProvider, request: ModelRequest = ASK) -> Completion:
    (*_, completion) = [item async for item in provider.stream(request)]
    assert isinstance(completion, Completion)
    return completion


SPENT = {"input_tokens": 19, "output_tokens": 3, "total_tokens": 22}


async def test_usage_finish_and_version_are_read_from_where_integrations_put_them() -> None:
    details = {"cache_read": 8, "cache_creation": 4}
    first = chunk("Hel", usage_metadata=SPENT | {"output_tokens": 0, "input_token_details": details})
    final = chunk("lo", usage_metadata={"input_tokens": 0, "output_tokens": 3, "total_tokens": 3})
    final.response_metadata = {"stop_reason": "max_tokens", "model_name": "big-2026"}
    provider, _ = of(first, final)
    told = await ask(provider)
    assert told.usage == Usage(19, 3, cached_input_tokens=8, cache_write_tokens=4)
    assert (told.text, told.finish_reason, told.model_version) == ("Hello", "length", "big-2026")


async def test_texts_in_blocks_are_texts_and_thoughts_are_not() -> None:
    provider, _ = of(
        chunk([{"type": "reasoning", "reasoning": "hm"}]), chunk([{"type": "text", "text": "a", "index": 0}])
    )
    assert (await ask(provider)).text == "a"


BAD_USAGE = [None, SPENT | {"input_tokens": -1}, SPENT | {"output_tokens": 0}, SPENT | {"output_tokens": 1 << 40}]


@pytest.mark.parametrize("usage", BAD_USAGE, ids=repr)
async def test_r06_usage_that_cannot_be_true_is_counted_by_us_and_marked(usage: Any) -> None:
    provider, _ = of(chunk("hello", usage_metadata=usage))
    told = (await ask(provider)).usage
    assert told.estimated
    assert told.output_tokens > 0


async def test_tool_calls_are_put_together_from_their_pieces() -> None:
    provider, model = of(piece("", "now", "c1"), piece('{"zone": '), piece('"UTC"}'), chunk())
    told = await ask(provider, ModelRequest(ASK.messages, tools=(TOOL,), tool_choice="required"))
    assert told.tool_calls == (ToolProposal("c1", "now", {"zone": "UTC"}),)
    assert told.finish_reason == "tool_calls"
    assert model.asked["tool_choice"] == "any"
    assert model.asked["tools"][0]["function"]["name"] == "now"


@pytest.mark.parametrize("args", ['{"zone": "U', "[1]", "now"])
async def test_u09_a_call_that_was_cut_is_an_error_though_langchain_would_mend_it(args: str) -> None:
    provider, _ = of(piece(args, "now", "c1"))
    with pytest.raises(UpstreamError):
        await ask(provider)


async def test_an_answer_of_nothing_is_an_error() -> None:
    provider, _ = of()
    with pytest.raises(UpstreamError):
        await ask(provider)


async def test_a_model_that_does_not_stream_answers_in_one_piece() -> None:
    call: Any = {"name": "now", "args": {"zone": "UTC"}, "id": "c1"}
    provider = LangChainProvider(INFO, Whole(messages=iter([AIMessage("hello", tool_calls=[call])])))
    *deltas, completion = [item async for item in provider.stream(ASK)]
    assert deltas == [Delta("hello")]
    assert isinstance(completion, Completion)
    assert completion.tool_calls == (ToolProposal("c1", "now", {"zone": "UTC"}),)


class Whole(GenericFakeChatModel):
    disable_streaming: bool = True


async def test_the_requests_bounds_reach_a_class_that_knows_them_and_leave_the_model_as_it_was() -> None:
    provider, model = of(chunk("a"))
    await ask(provider, ModelRequest(ASK.messages, max_tokens=7, temperature=0.5, top_p=0.1, stop=("\n",)))
    assert (model.asked["max_tokens"], model.asked["temperature"], model.asked["stop"]) == (7, 0.5, ["\n"])
    await ask(provider)
    assert model.asked["max_tokens"] == INFO.max_output_tokens, "always bounded"
    assert model.max_tokens is None


async def test_leaving_a_stream_stops_the_model() -> None:
    provider, model = of(chunk("a"), asyncio.Event())
    stream = provider.stream(ASK)
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(5):
        while not model.left:
            await asyncio.sleep(0)


async def test_closing_ends_a_call_that_waits() -> None:
    provider, _ = of(asyncio.Event())
    waiting = asyncio.ensure_future(anext(provider.stream(ASK)))
    await asyncio.sleep(0.01)
    await provider.close()
    with pytest.raises(UpstreamError, match="closed"):
        await asyncio.wait_for(waiting, 5)


async def test_what_a_model_cannot_do_is_the_callers_to_know() -> None:
    plain = LangChainProvider(INFO, GenericFakeChatModel(messages=iter([AIMessage("a")])))
    with pytest.raises(Invalid, match="tools"):
        await ask(plain, ModelRequest(ASK.messages, tools=(TOOL,)))
    with pytest.raises(Invalid, match="schema"):
        await ask(plain, ModelRequest(ASK.messages, response_schema={"type": "object"}))
    both = ModelRequest(ASK.messages, tools=(TOOL,), response_schema={"type": "object"})
    with pytest.raises(Invalid, match="not both"):
        await ask(plain, both)


def of_langchain() -> Iterator[tuple[Exception, type[UpstreamError]]]:
    for name, each in inspect.getmembers(langchain_exceptions, inspect.isclass):
        if issubclass(each, langchain_exceptions.ModelError):
            yield each("no"), LANGCHAIN[name]


LANGCHAIN: dict[str, type[UpstreamError]] = {
    "ModelError": UpstreamError,
    "ModelAuthenticationError": UpstreamUnauthorized,
    "ModelPermissionDeniedError": UpstreamUnauthorized,
    "ModelInvalidRequestError": UpstreamRejected,
    "ModelNotFoundError": UpstreamNotFound,
    "ModelRateLimitError": UpstreamRateLimited,
    "ModelAPIError": UpstreamError,
    "ModelConnectionError": UpstreamError,
    "ModelTimeoutError": UpstreamTimeout,
    "ContextOverflowError": UpstreamTooLong,
}
BY_STATUS: dict[int, type[UpstreamError]] = {
    400: UpstreamRejected, 401: UpstreamUnauthorized, 402: UpstreamUnauthorized, 403: UpstreamUnauthorized,
    404: UpstreamNotFound, 408: UpstreamTimeout, 409: UpstreamError, 412: UpstreamRejected, 413: UpstreamTooLong,
    422: UpstreamRejected, 429: UpstreamRateLimited, 431: UpstreamRejected, 499: UpstreamError, 500: UpstreamError,
    501: UpstreamError, 503: UpstreamError, 504: UpstreamTimeout, 529: UpstreamError,
}  # fmt: skip


def of_client(vendor: Any, http: Any) -> Iterator[tuple[Exception, type[UpstreamError]]]:
    """Every exception that the vendor's own client can raise for a call, made as the client makes it."""
    request = http.Request("POST", "http://vendor/v1")
    each: Any
    for _, each in inspect.getmembers(vendor._exceptions, inspect.isclass):
        if each.__module__ != vendor._exceptions.__name__ or not issubclass(each, vendor.APIError):
            continue
        if issubclass(each, vendor.APIStatusError):
            status = getattr(each, "status_code", 500)
            told = {"status_code": status, "headers": {"retry-after": "7"}, "request": request}
            yield each("no", response=http.Response(**told), body={"error": {"message": "no"}}), BY_STATUS[status]
        elif issubclass(each, vendor.APITimeoutError):
            yield each(request), UpstreamTimeout
        elif issubclass(each, vendor.APIConnectionError):
            yield each(request=request), UpstreamError
        elif each is vendor.APIResponseValidationError:
            yield each(http.Response(200, request=request), None), UpstreamError
        else:
            yield each("no", request, body=None), UpstreamError


def exceptions_of(*found: Iterator[tuple[Exception, type[UpstreamError]]]) -> list[Any]:
    return [pytest.param(error, kind, id=type(error).__qualname__) for each in found for error, kind in each]


openai_http = httpx2 if "httpx2" in inspect.getsource(openai._exceptions) else httpx
ALL = exceptions_of(of_langchain(), of_client(openai, openai_http), of_client(anthropic, httpx2))


@pytest.mark.parametrize(("error", "kind"), ALL)
def test_u05_every_exception_of_langchain_and_of_both_vendors_clients_has_its_kind(
    error: Exception, kind: type[UpstreamError]
) -> None:
    told = error_of("lc", error)
    assert type(told) is kind
    if isinstance(error, openai.APIStatusError | anthropic.APIStatusError):
        assert told.retry_after_s == 7


class Botocore(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        error = {"Code": "ValidationException", "Message": message}
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": error}


class Google(Exception):
    code = 429


class ReadTimeoutError(Exception):
    """As requests, urllib3, botocore and grpc name theirs."""


class Chained(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__("outer")
        self.__cause__ = cause


OTHERS = [
    (Botocore(400, "no"), UpstreamRejected), (Botocore(400, "Input is too long for requested model."), UpstreamTooLong),
    (Google(), UpstreamRateLimited), (ReadTimeoutError(), UpstreamTimeout),
    (TimeoutError(), UpstreamTimeout), (ConnectionError(), UpstreamError), (KeyError("choices"), UpstreamError),
    (Chained(Google()), UpstreamRateLimited), (Chained(TimeoutError()), UpstreamTimeout),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), OTHERS, ids=lambda value: type(value).__name__)
def test_exceptions_of_other_vendors_are_understood_by_what_they_carry(
    error: Exception, kind: type[UpstreamError]
) -> None:
    assert type(error_of("lc", error)) is kind


async def test_what_a_model_raises_becomes_ours_without_its_words() -> None:
    provider, _ = of(chunk("a"), RuntimeError("key sk-secret, prompt: Say hello"))
    with pytest.raises(UpstreamError) as raised:
        await ask(provider)
    assert raised.value.message == "lc failed (RuntimeError)"
    assert "sk-secret" not in repr(raised.value.__cause__)
    assert "Say hello" in repr(raised.value.__cause__)


class Configured(Chunks):
    """As integrations are made: by name, key and address, each under its usual name."""

    chunks: Sequence[Any] = ()
    model: str
    api_key: str = ""
    base_url: str = ""
    max_retries: int = 2
    temperature: float | None = None


def place(name: str = "Configured", **given: Any) -> ProviderConfig:
    return ProviderConfig(kind="langchain", chat_model=f"{HERE}:{name}", **given)


def test_a_model_is_made_from_its_import_path_with_the_files_arguments_and_never_retries() -> None:
    at = place(base_url="http://host/v1", arguments={"temperature": 0.3})
    made = LangChainProvider.configured(INFO, at, MODEL, "sk-1")._model
    assert isinstance(made, Configured)
    assert (made.model, made.api_key, made.base_url) == ("big", "sk-1", "http://host/v1")
    assert (made.max_retries, made.temperature) == (0, 0.3)


@pytest.mark.parametrize("path", ["", "json", "json:", "no_such_module:Class", f"{HERE}:Nothing", "json:dumps",
                                  "json:JSONDecoder", ":Class", "..:Class"])  # fmt: skip
def test_an_import_path_that_leads_to_no_chat_model_is_refused_at_start(path: str) -> None:
    at = ProviderConfig(kind="langchain", chat_model=path)
    with pytest.raises(Invalid) as raised:
        LangChainProvider.configured(INFO, at, MODEL, "")
    assert raised.value.field == "chat_model"


def test_arguments_that_the_class_refuses_are_refused_at_start_without_the_key() -> None:
    with pytest.raises(Invalid) as raised:
        LangChainProvider.configured(INFO, place(arguments={"max_tokens": "many"}), MODEL, "sk-secret")
    assert "sk-secret" not in raised.value.message


EMBEDS = embedding_info("e", "langchain", 100)


class Vectors(DeterministicFakeEmbedding):
    model: str = ""
    failure: Any = None

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.failure is not None:
            raise self.failure
        return await super().aembed_documents(texts)


async def test_embeddings_by_langchain_give_a_vector_a_text_and_estimate_their_usage() -> None:
    at = ProviderConfig(kind="langchain", chat_model=f"{HERE}:Vectors", arguments={"size": 8})
    provider = LangChainEmbeddings.configured(EMBEDS, at, ModelConfig(provider="p", model="v1", kind="embedding"), "")
    embedded = await provider.embed(["a", "b", "a"])
    assert [len(vector) for vector in embedded.vectors] == [8] * 3
    assert embedded.vectors[0] == embedded.vectors[2] != embedded.vectors[1]
    assert (embedded.usage.estimated, embedded.usage.output_tokens) == (True, 0)
    await provider.close()
    with pytest.raises(UpstreamError):
        await provider.embed(["a"])


@pytest.mark.parametrize(
    "model",
    [Vectors(size=0), Vectors(size=8), Vectors(size=4, failure=TimeoutError())],
    ids=["empty", "another size", "failed"],
)
async def test_embeddings_by_langchain_that_are_not_what_was_asked_for_are_an_error(model: Vectors) -> None:
    with pytest.raises(UpstreamError):
        await LangChainEmbeddings(EMBEDS, model, dimensions=4).embed(["a"])


async def test_a_schema_is_asked_for_by_structured_output_and_its_answer_comes_whole() -> None:
    call = {"name": "answer", "args": {"days": 90}, "id": "c1"}

    class Structured(Chunks):
        async def _agenerate(self, *_: Any, **kwargs: Any) -> ChatResult:
            self.asked.update(kwargs)
            answer = AIMessage("", tool_calls=[call], usage_metadata=SPENT)
            return ChatResult(generations=[ChatGeneration(message=answer)])

    model = Structured(chunks=())
    request = ModelRequest(
        ASK.messages, response_schema={"type": "object", "properties": {"days": {"type": "integer"}}}
    )
    *deltas, completion = [item async for item in LangChainProvider(INFO, model).stream(request)]
    assert isinstance(completion, Completion)
    assert [json.loads(delta.text) for delta in deltas if isinstance(delta, Delta)] == [{"days": 90}]
    assert completion.usage == Usage(19, 3)
    assert completion.tool_calls == ()
