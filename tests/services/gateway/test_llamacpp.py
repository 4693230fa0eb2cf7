"""What is peculiar to the model in the process; the rest is in tests/contracts/test_providers.py."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from app.services.gateway.gguf import embedded_gguf
from app.services.gateway.llamacpp import LlamaCppProvider
from graphs.errors import Invalid, UpstreamError, UpstreamRejected
from graphs.types import Completion, Message, ModelRequest, ToolProposal

ASK = ModelRequest(messages=(Message("user", "Tell a long story about a ship."),), max_tokens=300)


async def whole(provider: LlamaCppProvider, request: ModelRequest) -> Completion:
    (*_, completion) = [item async for item in provider.stream(request)]
    assert isinstance(completion, Completion)
    return completion


async def test_two_may_live_in_one_process() -> None:
    one, other = await LlamaCppProvider.open(slots=1), await LlamaCppProvider.open(slots=1, name="other")
    await one.close()
    assert (await whole(other, ModelRequest(ASK.messages, max_tokens=4))).model == "other"
    await other.close()


async def test_a_gguf_of_the_users_own_is_named_for_its_file(tmp_path: Path) -> None:
    path = tmp_path / "My Model_Q4.gguf"
    path.symlink_to(embedded_gguf())
    provider = await LlamaCppProvider.open(gguf=path, context_tokens=100_000, slots=1)
    assert provider.info.name == "my-model_q4"
    assert provider.info.version == "sha256:b179c9523d0e"
    assert provider.info.context_tokens == 8_192, "not more than the model was trained for"
    await provider.close()


async def test_weights_that_cannot_be_loaded_are_invalid_and_named(tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(embedded_gguf().read_bytes()[:4_000_000])
    with pytest.raises(Invalid, match=r"half\.gguf"):
        await LlamaCppProvider.open(gguf=path, slots=1)


async def test_every_slot_has_the_whole_window_and_what_exceeds_it_is_rejected() -> None:
    provider = await LlamaCppProvider.open(context_tokens=256, slots=2)
    fits = ModelRequest((Message("user", "ship " * 180),), max_tokens=4)
    for completion in await asyncio.gather(whole(provider, fits), whole(provider, fits)):
        assert completion.usage.input_tokens > 180
    with pytest.raises(UpstreamRejected, match="exceed_context_size_error"):
        await whole(provider, ModelRequest((Message("user", "ship " * 300),), max_tokens=4))
    await provider.close()


async def test_more_calls_than_slots_wait_their_turn() -> None:
    provider = await LlamaCppProvider.open(context_tokens=512, slots=2)
    answers = await asyncio.gather(*(whole(provider, ModelRequest(ASK.messages, max_tokens=12)) for _ in range(7)))
    assert [answer.usage.output_tokens for answer in answers] == [12] * 7
    await provider.close()


async def test_a_turn_with_tools_is_readable_for_a_model_without_them() -> None:
    call = ToolProposal("c1", "calculator", {"expression": "3+4"})
    messages = (
        Message("user", "What is 3+4?"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "7", tool_call_id="c1"),
    )
    provider = await LlamaCppProvider.open(slots=1)
    assert (await whole(provider, ModelRequest(messages, max_tokens=8))).text
    await provider.close()


async def test_closing_ends_the_streams_in_flight() -> None:
    provider = await LlamaCppProvider.open(slots=1)

    async def listen() -> None:
        async for _ in provider.stream(ASK):
            speaking.set()

    speaking = asyncio.Event()
    listening = asyncio.create_task(listen())
    await speaking.wait()
    await provider.close()
    with pytest.raises(UpstreamError):
        await listening


async def test_the_server_answers_on_loopback_to_its_key_alone() -> None:
    provider = await LlamaCppProvider.open(slots=1)
    url, _ = provider.address
    assert url.startswith("http://127.0.0.1:")
    async with aiohttp.ClientSession() as session:
        for path in ("/v1/chat/completions", "/completion", "/tokenize"):
            async with session.post(url + path, json={"prompt": "x", "content": "x"}) as response:
                assert response.status == 401
        for path in ("/metrics", "/slots", "/props"):
            async with session.get(url + path) as response:
                assert response.status in {401, 403, 404, 501}
    await provider.close()


SERVING = """
import asyncio, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
from app.services.gateway.llamacpp import LlamaCppProvider
from graphs.types import Message, ModelRequest

async def serve():
    provider = await LlamaCppProvider.open(slots=1)
    async for item in provider.stream(ModelRequest((Message("user", "Tell a story"),), max_tokens=LENGTH)):
        print("up", flush=True)
    await provider.close()

asyncio.run(serve())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_while_it_generates(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVING.replace("LENGTH", "2000")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode in {-number, 1, 130}
    assert b"Segmentation" not in said


def test_nothing_but_what_we_say_is_written_to_the_terminal() -> None:
    program = [sys.executable, "-c", SERVING.replace("LENGTH", "3")]
    ran = subprocess.run(program, capture_output=True, timeout=60, check=True)
    assert (set(ran.stdout.split()), ran.stderr) == ({b"up"}, b"")
