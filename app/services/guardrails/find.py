"""Finds what patterns have the form of in a whole text, for texts that are at hand before anything is decided."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from app.services.guardrails.patterns import Pattern


@dataclass(frozen=True, slots=True)
class Found:
    """What stands from `start` to `end` (exclusive) has the form `kind`."""

    kind: str
    start: int
    end: int


def find(patterns: Sequence[Pattern], text: str) -> tuple[Found, ...]:
    """All that is found, by place, without overlaps: the first that begins is taken; the table decides a tie."""
    found = [(each.start, order, each) for order, pattern in enumerate(patterns) for each in _all(pattern, text)]
    taken: list[Found] = []
    for _, _, each in sorted(found, key=lambda item: item[:2]):
        if not taken or each.start >= taken[-1].end:
            taken.append(each)
    return tuple(taken)


def replaced(text: str, found: Iterable[Found], by: Callable[[str, str], str]) -> str:
    """The text with what `by` gives for the kind and the text of each find in its place."""
    out, end = [], 0
    for each in found:
        out += [text[end : each.start], by(each.kind, text[each.start : each.end])]
        end = each.end
    return "".join([*out, text[end:]])


def _all(pattern: Pattern, text: str) -> Iterator[Found]:
    match = pattern.whole.search(text)
    while match is not None:
        start, stop = match.start(), match.end()
        if pattern.until is not None:
            closing = pattern.until.search(text, stop, stop + pattern.until_chars)
            stop = closing.end() if closing else min(len(text), stop + pattern.until_chars)
        verdict = pattern.judge(text, start, match.end())
        if verdict is not None:
            stop = stop if pattern.until is not None else verdict[0]
            if pattern.tail is not None and (tail := pattern.tail.match(text, stop)):
                stop = tail.end()
            yield Found(pattern.name, start, stop)
        match = pattern.whole.search(text, stop if verdict is not None else start + 1)
