"""A model server that waits in the middle of an answer until a test has seen what it wanted to see."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.fake_openai import calling, chunk, event


@dataclass
class Lab:
    """Answers `hold NAME` with a word, and the rest when that gate opens; `ticket NAME` with a call of the tool, and
    the word after it when that gate opens; a prompt that holds one of the `facts` with that fact."""

    facts: tuple[str, ...] = ()
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    heard: list[dict[str, Any]] = field(default_factory=list)

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def __call__(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        messages = body["messages"]
        asked = next(str(turn["content"]) for turn in reversed(messages) if turn["role"] == "user")
        prompt = "".join(str(turn["content"]) for turn in messages)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.heard.append(body)
        if known := next((fact for fact in self.facts if fact in prompt), None):
            await response.write(event(chunk(known)) + event(chunk(finish="stop")))
        elif any(turn["role"] == "tool" for turn in messages):
            await self.gate(asked.split()[-1]).wait()
            await response.write(event(chunk("Done.")) + event(chunk(finish="stop")))
        elif "ticket" in asked:
            arguments = orjson.dumps({"title": "Printer", "body": f"It is broken: {asked.split()[-1]}."}).decode()
            call = calling(name="create_ticket", arguments=arguments)
            await response.write(event(call) + event(chunk(finish="tool_calls")))
        else:
            await response.write(event(chunk("One. ")))
            await self.gate(asked.split()[-1]).wait()
            await response.write(event(chunk("Two.")) + event(chunk(finish="stop")))
        await response.write(b"data: [DONE]\n\n")
        return response
