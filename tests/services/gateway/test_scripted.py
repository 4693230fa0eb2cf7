import asyncio
from dataclasses import replace

import pytest

from app.services.gateway.scripted import Say, ScriptedGateway
from graphs.errors import UpstreamRateLimited, UpstreamRejected
from graphs.types import Delta, Message, ModelRequest, ToolProposal

ASK = ModelRequest(messages=(Message("user", "Say hello"),))


async def test_a_script_plays_line_by_line_and_remembers_what_it_was_asked() -> None:
    call = ToolProposal("c1", "calculator", {})
    gateway = ScriptedGateway(["Hello you", Say(tool_calls=(call,)), UpstreamRateLimited("wait", retry_after_s=2)])
    assert [item.text async for item in gateway.stream(ASK)] == ["Hello ", "you", "Hello you"]
    second = await gateway.complete(ASK)
    assert (second.text, second.tool_calls, second.finish_reason) == ("", (call,), "tool_calls")
    with pytest.raises(UpstreamRateLimited):
        await gateway.complete(ASK)
    assert gateway.requests == (replace(ASK, model="scripted"),) * 3


async def test_a_script_that_has_run_out_says_so() -> None:
    with pytest.raises(UpstreamRejected, match="the script has 0 lines, this is call 1"):
        await ScriptedGateway([]).complete(ASK)


async def test_a_function_can_answer_by_what_it_is_asked() -> None:
    gateway = ScriptedGateway(lambda request: request.messages[-1].content.upper())
    assert (await gateway.complete(ASK)).text == "SAY HELLO"


async def test_the_test_decides_when_the_model_speaks() -> None:
    starts = asyncio.Event()
    stream = ScriptedGateway([Say(("Hello",), wait=starts)]).stream(ASK)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    starts.set()
    assert await waiting == Delta("Hello")
    await stream.aclose()
