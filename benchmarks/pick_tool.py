"""How often the tool picker finds the right tool, or rightly none.

    python benchmarks/pick_tool.py /work/shared/data/tools/bfcl

BFCL v4 (simple, multiple, irrelevance) brings unseen tools known by their descriptions alone: THRESHOLD was
chosen on its even rows, this reports the odd ones. The rest asks for Pilothouse's own tools, which have example
questions; none of the questions below is among those.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.tools.calculator import Calculator
from app.services.tools.create_ticket import CreateTicket
from app.services.tools.current_time import CurrentTime
from app.services.tools.pick import ToolPicker
from app.services.tools.search_documents import SearchDocuments
from graphs.types import ToolSpec

PARTS = ("simple_python", "multiple", "irrelevance")

OURS: dict[str | None, tuple[str, ...]] = {
    "calculator": (
        "what's 48 times 92",
        "12.5 + 7.25 - 3",
        "Can you multiply 144 by 12?",
        "I had 350 euros and spent 18 percent, how much did I spend?",
        "How much is 7 to the power of 5?",
        "Divide 1024 by 16 please",
        "What is the cube root of 27?",
        "sum of 19, 22 and 4.5",
        "(3 + 4) * 12 / 2",
        "If one licence costs 29.90, what do 14 cost?",
        "sqrt(2) times pi",
        "What is 3/8 as a decimal?",
    ),
    "current_time": (
        "what time is it",
        "Tell me the time in New York",
        "What day is it today?",
        "Current time in Sydney please",
        "Is it already Monday in Auckland?",
        "What's the date?",
        "How late is it in London right now?",
        "which weekday do we have",
        "Give me the current UTC time.",
        "What year is it?",
    ),
    "create_ticket": (
        "Open a ticket: the VPN does not connect.",
        "Please create a ticket for the broken coffee machine",
        "I want to report that the search page is down",
        "File a bug: uploads over 10 MB fail",
        "Raise an issue with support about my invoice.",
        "Make a ticket titled Disk full on node 4",
        "Log a request for a new laptop.",
        "Can you tell the support team that the dashboard shows wrong numbers?",
        "New ticket: rotate the TLS certificate",
        "Submit a problem report about slow logins",
    ),
    "search_documents": (
        "How do I rotate an API key?",
        "What does the runbook say about a provider outage?",
        "Which environment variable sets the home folder?",
        "What happens when the budget is exhausted?",
        "Look up how approvals expire",
        "Search the handbook for citations",
        "How is a document split into chunks?",
        "What do the scopes of a key mean?",
        "How do I upload a PDF?",
        "Where are traces stored?",
        "What is the answer card?",
        "How long does a run wait for an approval?",
        "Find the page about index rebuild.",
        "How do I configure an OpenAI-compatible server?",
        "What does error code not_found mean?",
        "Describe the retention policy.",
        "What is the capital of France?",
        "Who painted the Mona Lisa?",
        "Why is the sky blue?",
    ),
    None: (
        "Hello, how are you?",
        "Tell me a joke about cats.",
        "Write a short poem about autumn.",
        "Thank you very much!",
        "Who are you?",
        "Translate good morning into Spanish.",
        "I feel sad today.",
        "Give me a name for my dog.",
        "Sing me a song.",
        "ok",
        "Can you recommend a film?",
        "What do you think about football?",
        "Write an email to my grandmother.",
    ),
}

# Written after the examples were settled on the questions above.
HELD_OUT: dict[str | None, tuple[str, ...]] = {
    "calculator": (
        "23 minus 57?",
        "how many is 12 dozen times 4",
        "Work out 3.2 * 1.19",
        "A third of 4,500, please: 4500 / 3",
        "log10(5000)",
        "40% off 250",
        "Subtract 89 from 1000",
        "What do you get when you square 31?",
    ),
    "current_time": (
        "do you know the hour in Sao Paulo",
        "Today's weekday?",
        "time now",
        "Is it morning in Los Angeles?",
        "What is the date in Tokyo right now?",
        "Please give me the local time in Paris",
    ),
    "create_ticket": (
        "Ticket please: monitor flickers in room 12",
        "Notify the helpdesk that my account is locked",
        "Could you open an incident for the failed backup?",
        "I'd like to complain formally about the noisy fan",
        "Put in a request for two more seats",
        "Escalate to support: nobody can sign in",
    ),
    "search_documents": (
        "How long are conversations kept?",
        "Which torque is specified for bolt A7?",
        "What changed in the last release?",
        "Who approves travel expenses?",
        "Steps to restore from a backup",
        "What is the difference between rag and agent mode?",
        "Does the API support WebSocket?",
        "What limits apply to uploads?",
        "When does an approval expire?",
        "How does the claims process work for water damage?",
    ),
    None: (
        "hi there",
        "thanks a lot, bye",
        "Make up a limerick about a frog",
        "You are great!",
        "Please write a birthday greeting for Anna",
        "How do you feel?",
        "Say something nice",
        "What are you able to do?",
    ),
}


@dataclass
class Described:
    spec: ToolSpec
    examples: tuple[str, ...] = ()

    async def run(self, call: Any) -> Any:
        raise NotImplementedError  # picked, never run


async def picked(picker: ToolPicker, question: str, tools: Sequence[Any]) -> str | None:
    ranked = await picker.rank(question, tools)
    return ranked[0][0].name if ranked else None


async def bfcl(picker: ToolPicker, text: str) -> list[bool]:
    """Whether each row's tool, or none, was picked."""
    hits = []
    for row in map(json.loads, text.splitlines()):
        tools = [Described(ToolSpec(tool["name"], tool["description"], tool["parameters"])) for tool in row["function"]]
        right = next(iter(row["ground_truth"][0])) if "ground_truth" in row else None
        hits.append(await picked(picker, row["question"][0][-1]["content"], tools) == right)
    return hits


async def ours(picker: ToolPicker, asked: dict[str | None, tuple[str, ...]]) -> None:
    tools = [SearchDocuments(None), Calculator(), CurrentTime(lambda: datetime.now(UTC)), CreateTicket(None)]  # type: ignore[arg-type]
    total = right_ones = 0
    for right, questions in asked.items():
        got = [(question, await picked(picker, question, tools)) for question in questions]
        hits = sum(name == right for _, name in got)
        total, right_ones = total + len(got), right_ones + hits
        print(f"  {right or 'none'}: {hits} of {len(got)}")
        for question, name in got:
            if name != right:
                print(f"      {name or 'none':18} {question}")
    print(f"  together {right_ones / total:.3f} (n={total})")


async def main(texts: dict[str, str]) -> None:
    embedder = await MiniLmEmbedder.open()
    picker = ToolPicker(embedder)
    results = {name: await bfcl(picker, text) for name, text in texts.items()}
    fitting = (results["simple_python"] + results["multiple"])[1::2]
    irrelevant = results["irrelevance"][1::2]
    print(f"BFCL, odd rows, right tool: {np.mean(fitting):.3f} (n={len(fitting)})")
    print(f"BFCL, odd rows, rightly none: {np.mean(irrelevant):.3f} (n={len(irrelevant)})")
    picker = ToolPicker(embedder, fallback="search_documents")
    print("our tools, questions that the examples were tuned on:")
    await ours(picker, OURS)
    print("our tools, held out:")
    await ours(picker, HELD_OUT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bfcl", type=Path)
    folder = parser.parse_args().bfcl
    asyncio.run(main({name: (folder / f"{name}.jsonl").read_text() for name in PARTS}))
