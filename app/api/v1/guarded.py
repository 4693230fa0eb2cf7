"""The output patterns over an answer on OpenAI's wire: every text of every choice, whole or as it streams.

Arguments of tool calls pass as they are: they go to the client's own functions, and a changed one is another call.
"""

from collections.abc import Callable
from typing import Any

from app.services.gateway.provider import WireEvent
from graphs.context import StreamFilter

NewFilter = Callable[[], StreamFilter]


class Guarded:
    """One answer. `new_filter` gives the patterns for one text of one choice.

    Log-probabilities spell the text token by token. They pass only where the client asked for `logprobs`: with their
    text, and no longer once that was changed.
    """

    def __init__(self, new_filter: NewFilter, *, logprobs: bool = False) -> None:
        self._new_text: NewFilter = (lambda: _Spelled(new_filter())) if logprobs else new_filter
        self._new_filter = new_filter
        self._texts: dict[tuple[int, str], StreamFilter] = {}
        self._calling: set[int] = set()

    def clean(self, event: WireEvent) -> bool:
        """Make the event's data what may leave now; says whether that changed it.

        Text that may yet become a match is held back and comes with a later event, at the latest with the one that
        begins a tool call or ends its choice.
        """
        changed = False
        choices = event.data.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                changed = self._choice(choice) or changed
        return changed

    def _choice(self, choice: dict[str, Any]) -> bool:
        piece = choice.get("delta")
        if not isinstance(piece, dict):
            piece = choice.get("message")
        if not isinstance(piece, dict):
            piece = {}
        index = choice.get("index")
        place = index if isinstance(index, int) else 0
        changed = False
        for name, value in piece.items():
            if isinstance(value, str):
                if value and name != "role":
                    clean = self._text(place, name).feed(value)
                    if clean != value:
                        piece[name], changed = clean, True
            elif name == "content" and isinstance(value, list):
                changed = self._parts(value) or changed
        if choice.get("logprobs") is not None:
            choice["logprobs"], changed = self._logprobs(choice["logprobs"], place), True
        begins_call = "tool_calls" in piece and place not in self._calling
        if begins_call:
            self._calling.add(place)
        if begins_call or choice.get("finish_reason") is not None or "message" in choice:
            changed = self._end(choice, piece, place) or changed
        return changed

    def _text(self, place: int, name: str) -> StreamFilter:
        text = self._texts.get((place, name))
        if text is None:
            text = self._texts[place, name] = self._new_text()
        return text

    def _parts(self, parts: list[Any]) -> bool:
        """A content in parts, as some servers send it; each is a text of its own."""
        changed = False
        for part in parts:
            if isinstance(part, dict) and isinstance(text := part.get("text"), str):
                guard = self._new_filter()
                clean = guard.feed(text) + guard.close()
                if clean != text:
                    part["text"], changed = clean, True
        return changed

    def _logprobs(self, given: Any, place: int) -> dict[str, Any] | None:
        if not isinstance(given, dict):
            return None
        found: dict[str, Any] = {}
        for name, entries in given.items():
            text = self._text(place, name)
            if isinstance(text, _Spelled) and isinstance(entries, list):
                found[name] = text.pass_on(entries)
        return found or None

    def _end(self, choice: dict[str, Any], piece: dict[str, Any], place: int) -> bool:
        """Add what is still held back of the choice's texts."""
        changed = False
        for (index, name), text in self._texts.items():
            if index != place:
                continue
            if rest := text.close():
                piece[name], changed = (piece.get(name) or "") + rest, True
            if isinstance(text, _Spelled) and (late := text.pass_on([])):
                logprobs = choice.get("logprobs") or {}
                choice["logprobs"] = logprobs | {name: (logprobs.get(name) or []) + late}
                changed = True
        if changed and "message" not in choice:
            choice["delta"] = piece
        return changed


class _Spelled:
    """One text on its way out, with the log-probabilities that wait for it."""

    def __init__(self, patterns: StreamFilter) -> None:
        self._patterns = patterns
        self._held, self._changed = "", False
        self._waiting: list[Any] = []

    @property
    def reasons(self) -> tuple[str, ...]:
        return self._patterns.reasons

    def feed(self, text: str) -> str:
        return self._note(text, self._patterns.feed(text))

    def close(self) -> str:
        return self._note("", self._patterns.close())

    def _note(self, given: str, out: str) -> str:
        """Once what leaves is not the beginning of what came, the patterns have changed it."""
        held = self._held + given
        self._changed = self._changed or not held.startswith(out)
        self._held = held[len(out) :]
        return out

    def pass_on(self, entries: list[Any]) -> list[Any]:
        """Which of these, and of those that waited, may leave: none while a part of the text is held back."""
        self._waiting += entries
        if self._changed:
            self._waiting = []
        if self._held and not self._changed:
            return []
        out, self._waiting = self._waiting, []
        return out
