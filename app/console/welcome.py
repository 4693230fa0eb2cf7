"""What an empty conversation offers, by mode. The examples can be answered from the handbook or by the tools."""

from dataclasses import dataclass
from typing import Final

from app.records import Mode


@dataclass(frozen=True, slots=True)
class Example:
    topic: str
    message: str


@dataclass(frozen=True, slots=True)
class Welcome:
    title: str
    text: str
    examples: tuple[Example, ...]


WELCOME: Final[dict[Mode, Welcome]] = {
    "rag": Welcome(
        "Ask the handbook",
        "Answers come from the documents of the chosen collection. Every sentence is checked against its sources.",
        (
            Example("Outage", "What should I do when a model provider is down?"),
            Example("Keys", "How do I rotate an API key?"),
            Example("Approvals", "Which tools need an approval before they run?"),
            Example("Errors", "What does the code quota_exhausted mean?"),
        ),
    ),
    "agent": Welcome(
        "Let the agent use its tools",
        "It can search the documents, calculate, tell the time, and write tickets. It asks before it changes anything.",
        (
            Example("Ticket", "Create a ticket: the nightly index rebuild failed"),
            Example("Search", "Search the documents for how approvals expire"),
            Example("Calculate", "What is 17.5 % of 2340?"),
            Example("Time", "What time is it now?"),
        ),
    ),
    "chat": Welcome(
        "Talk to the model",
        "Chat answers from the model alone, without documents and without tools.",
        (
            Example("Explain", "Explain retrieval-augmented generation in two sentences."),
            Example("Write", "Write a short status note about a delayed release."),
            Example("List", "List three reasons to keep an audit log."),
            Example("Compare", "What is the difference between a queue and a stack?"),
        ),
    ),
}
