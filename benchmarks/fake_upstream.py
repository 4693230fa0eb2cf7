"""An OpenAI-compatible server that answers at once: what is measured in front of it is not its own.

    python benchmarks/fake_upstream.py --port 9001

Raw asyncio and constant bytes: 32 tokens as 32 events in one write, or one JSON answer. It keeps connections alive.
"""

import argparse
import asyncio
import json
from typing import Final

TOKENS: Final = 32
USAGE: Final = {"prompt_tokens": 20, "completion_tokens": TOKENS, "total_tokens": 20 + TOKENS}
_HEAD: Final = {"id": "chatcmpl-fake", "created": 1_700_000_000, "model": "fake-1"}
_ANSWER: Final = {
    **_HEAD,
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "word " * TOKENS},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    event = {**_HEAD, "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _delta(delta: dict[str, object], finish: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]


_EVENTS: Final = [
    _event(_delta({"role": "assistant", "content": ""})),
    *(_event(_delta({"content": "word "})) for _ in range(TOKENS)),
    _event(_delta({}, "stop")),
    _event([], usage=USAGE),
    b"data: [DONE]\n\n",
]


def _whole() -> bytes:
    body = json.dumps(_ANSWER).encode()
    return (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)) + body


def _streamed() -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in _EVENTS)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n\r\n"


WHOLE, STREAMED = _whole(), _streamed()


class Upstream(asyncio.Protocol):
    """Answers every request on a connection in turn."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._held = transport, b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : (head + b"\r\n").find(b"\r\n", at)]) if at >= 0 else 0
            whole = end + 4 + length
            if len(self._held) < whole:
                return
            body, self._held = self._held[end + 4 : whole], self._held[whole:]
            streamed = b'"stream":true' in body or b'"stream": true' in body
            self._transport.write(STREAMED if streamed else WHOLE)  # type: ignore[attr-defined]


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    asyncio.run(serve(arguments.parse_args().port))
