"""Counts tokens without the model at hand: an upper estimate from the kinds of characters in a text."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from graphs.types import Message, Usage

# Every byte by its kind: a for letters, . for other ASCII but the space, ~ beyond ASCII.
_KINDS: Final = bytes(
    ord("~") if byte > 127 else ord("a") if chr(byte).isalpha() else byte if byte == 32 else ord(".")
    for byte in range(256)
)
# What a chat template adds around each message (role, markers, line ends), and once for the answer's opening.
MESSAGE_TOKENS: Final = 8


def estimate_tokens(text: str) -> int:
    """An upper estimate for prose and code; random characters and scripts far from Latin can exceed it.

    English words count a token for every four letters begun; every other ASCII character (digits, signs, line ends)
    counts one, since small vocabularies split them all; beyond ASCII two bytes count one. On 556 pieces of English
    Markdown and Python it was never below SmolLM2's tokenizer, in the mean 1.7 times it; at six letters 4 were below.
    """
    # Replacing and counting bytes is what C does for us: five times faster than looking at each word.
    kinds = text.encode("utf-8", "replace").translate(_KINDS)
    beyond = kinds.count(b"~")
    signs = len(kinds) - beyond - kinds.count(b"a") - kinds.count(b" a")
    # The space before a word counts as its first letter; then each word is cut into fours from its beginning.
    words = kinds.replace(b" a", b"\naa").replace(b"aaaa", b"4")
    rests = words.replace(b"aaa", b"1").replace(b"aa", b"1").replace(b"a", b"1")
    return words.count(b"4") + rests.count(b"1") + signs + (beyond + 1) // 2


def texts_of(messages: Iterable[Message]) -> Iterable[str]:
    """All that a model reads of the messages, one text a message."""
    for message in messages:
        calls = "".join(f"{call.name}{dict(call.arguments)}" for call in message.tool_calls)
        yield message.content + calls


def estimated_usage(messages: Sequence[Message], written: str, count: Callable[[str], int]) -> Usage:
    """The usage of a call whose server did not say; `count` is the model's."""
    read = sum(count(text) + MESSAGE_TOKENS for text in texts_of(messages))
    return Usage(input_tokens=read + MESSAGE_TOKENS, output_tokens=count(written), estimated=True)
