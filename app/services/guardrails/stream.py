"""Applies output patterns to text as it comes. What `feed` has returned is final.

Held back is only what may still become a match: seldom more than a word, 1,012 characters at most inside markup or
a token's header, and the whole of a private key (up to 8,300) once its first line is seen. However a text is cut into
pieces, the joined output is the same; the property test says so.
"""

import re
from collections.abc import Sequence

from app.services.guardrails.patterns import Pattern

CONTEXT_CHARS = 34  # what a judge may look back at, and what may not stand before a match

Match = re.Match[str]


class PatternFilter:
    """One text, fed in pieces. Implements `graphs.context.StreamFilter`."""

    def __init__(self, patterns: Sequence[Pattern], opening: re.Pattern[str] | None = None) -> None:
        """`opening` is what `any_opening` makes of the patterns, where there are many texts."""
        self._patterns = tuple(patterns)
        self._opening = opening or any_opening(self._patterns)
        self._text = ""
        self._from = 0  # characters of `_text` before this one are context: already let out, or dropped
        self._dropping: re.Pattern[str] | None = None
        self._reasons: list[str] = []

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of the patterns that replaced something so far, in order of first use."""
        return tuple(dict.fromkeys(self._reasons))

    def feed(self, text: str) -> str:
        """The part of the answer that may go out now."""
        self._text += text
        # Nearly every word: no pattern begins in it, and it leaves as it came for a thirtieth of the price.
        if self._dropping is None and self._opening.search(self._text, self._from) is None:
            return self._let_out(len(self._text))
        return self._advance(final=False)

    def close(self) -> str:
        """The rest. The filter is spent afterwards."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        text, position, out = self._text, self._from, []
        hold = -1  # from where the text may still become a match; found anew when a match reaches beyond it
        patterns = [pattern for pattern in self._patterns if pattern.opening.search(text, position)]
        upcoming: list[Match | None] = [pattern.whole.search(text, position) for pattern in patterns]
        while True:
            if self._dropping:
                run = self._dropping.match(text, position)
                position = run.end() if run else position
                if position == len(text) and not final:
                    break
                self._dropping = None
            if hold < position:
                hold = len(text) if final else _hold(patterns, text, position)
            index = _next(patterns, upcoming, text, position)
            match = None if index is None else upcoming[index]
            if index is None or match is None or match.start() >= hold:
                out.append(text[position:hold])
                position = hold
                break
            out.append(text[position : match.start()])
            position = match.start()
            pattern = patterns[index]
            if not final and len(text) < match.end() + pattern.ahead_chars:
                break
            end = _end_of_block(pattern, text, match.end(), final)
            if end is None:
                break
            verdict = pattern.judge(text, match.start(), match.end())
            if verdict is None:
                upcoming[index] = pattern.whole.search(text, position + 1)
                continue
            stop, replacement = verdict
            self._reasons.append(pattern.name)
            out.append(replacement)
            position = end if pattern.until else stop
            self._dropping = pattern.tail
        self._let_out(position)
        return "".join(out)

    def _let_out(self, position: int) -> str:
        """Keep only what follows `position`, and some context before it; gives what was not let out yet."""
        out, context = self._text[self._from : position], max(position - CONTEXT_CHARS, 0)
        self._text, self._from = self._text[context:], position - context
        return out


def any_opening(patterns: Sequence[Pattern]) -> re.Pattern[str]:
    """What begins wherever one of the patterns may."""
    return re.compile("|".join(pattern.opening.pattern for pattern in patterns), re.DOTALL)


def _next(patterns: Sequence[Pattern], upcoming: list[Match | None], text: str, position: int) -> int | None:
    """Which pattern matches first from `position` on; the table's order decides a tie."""
    first: int | None = None
    start = len(text) + 1
    for index, match in enumerate(upcoming):
        if match is not None and match.start() < position:
            match = upcoming[index] = patterns[index].whole.search(text, position)
        if match is not None and match.start() < start:
            first, start = index, match.start()
    return first


def _hold(patterns: Sequence[Pattern], text: str, position: int) -> int:
    hold = len(text)
    for pattern in patterns:
        begun = pattern.begun.search(text, max(position, len(text) - pattern.longest_chars))
        hold = min(hold, begun.start()) if begun else hold
    return hold


def _end_of_block(pattern: Pattern, text: str, end: int, final: bool) -> int | None:
    """Where what belongs to a match ends; None while that is still to come."""
    if pattern.until is None:
        return end
    closing = pattern.until.search(text, end, end + pattern.until_chars)
    if closing:
        return closing.end()
    complete = final or len(text) >= end + pattern.until_chars
    return min(len(text), end + pattern.until_chars) if complete else None
