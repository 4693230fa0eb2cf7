"""Prompts: versioned files of typed sections, rendered into messages within a token budget.

One TOML file a prompt and version under `graphs/prompts/`, named `<name>@<version>.toml`. Sections that the author
writes (safety, system, developer, format) may carry `{variables}`; what a run brings (user, tool results, passages,
history) is data: it is fenced, never scanned for variables, and can never land in an authored section.

`PRECEDENCE` is stated once and used twice: it orders the authored text, and it decides what gives way when the
context window is short, last first. Authored sections and the user's message never give way.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar, cast

from graphs.errors import Missing, PromptInvalid, PromptTooLong
from graphs.fence import fence, fenced, mark
from graphs.types import Message, Passage, ToolResult

SectionKind = Literal["safety", "system", "developer", "format", "user", "tool_results", "passages", "history"]
PRECEDENCE: Final[tuple[SectionKind, ...]] = (
    "safety",
    "system",
    "developer",
    "format",
    "user",
    "tool_results",
    "passages",
    "history",
)
AUTHORED: Final = frozenset({"safety", "system", "developer", "format"})
ANSWERING: Final = frozenset({"chat.answer", "rag.answer", "agent.act"})
"""Prompts whose answers people read as the model wrote them."""
PACKAGED: Final = Path(__file__).with_name("prompts")
MESSAGE_TOKENS: Final = 8  # what a chat template wraps round one message; ChatML spends 5, others up to 8

_VARIABLE = re.compile(r"(?<!\{)\{([a-z][a-z0-9_]*)\}(?!\})")
_FILLED = re.compile(rf"\{{\{{|\}}\}}|{_VARIABLE.pattern}")
_FILE_NAME = re.compile(r"(?P<name>[a-z][a-z0-9_.]*)@(?P<version>[1-9][0-9]*)\.toml")

T = TypeVar("T")
CountTokens = Callable[[str], int]


class Authored(str):
    """A text of the operator's own hand, the only kind that a variable of an authored section takes: what anybody else
    may have written gives no instructions."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a prompt that its author wrote."""

    kind: SectionKind
    text: str

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(_VARIABLE.findall(self.text))


@dataclass(frozen=True, slots=True)
class SectionUse:
    """What became of a section in one rendering; `dropped` counts the items that did not fit."""

    kind: SectionKind
    tokens: int
    items: int
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run brings to a prompt. `passages` come best first, `history` oldest first."""

    user: str
    passages: Sequence[Passage] = ()
    history: Sequence[Message] = ()
    tool_results: Sequence[ToolResult] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """Messages ready for a model, the passages that fitted, and where every token came from."""

    messages: tuple[Message, ...]
    passages: tuple[Passage, ...]
    version: str
    provenance: tuple[SectionUse, ...]

    @property
    def fixed_tokens(self) -> int:
        """What the authored sections and the user's message take, which never give way."""
        fixed = sum(use.tokens for use in self.provenance if use.kind in AUTHORED or use.kind == "user")
        return fixed + 2 * MESSAGE_TOKENS


@dataclass(frozen=True, slots=True)
class Prompt:
    """One version of one prompt."""

    name: str
    number: int
    sections: tuple[Section, ...]
    digest: str

    @property
    def version(self) -> str:
        """`name@number#digest`, the digest being of the file's bytes: an edited file is another version."""
        return f"{self.name}@{self.number}#{self.digest}"

    @property
    def variables(self) -> frozenset[str]:
        return frozenset().union(*(section.variables for section in self.sections))

    @classmethod
    def parse(cls, data: bytes, *, name: str, number: int) -> Self:
        """Read a prompt file. Raises PromptInvalid naming the prompt and what is wrong with it."""
        label = f"{name}@{number}"
        try:
            tree = tomllib.loads(data.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PromptInvalid(f"prompt {label} is not TOML: {error}") from error
        if unknown := tree.keys() - {"description", "section"}:
            raise PromptInvalid(f"prompt {label} has unknown keys: {', '.join(sorted(unknown))}")
        sections = tuple(_section(label, entry) for entry in tree.get("section", ()))
        if not any(section.kind == "system" for section in sections):
            raise PromptInvalid(f"prompt {label} has no system section")
        ordered = sorted(sections, key=lambda section: PRECEDENCE.index(section.kind))
        return cls(name, number, tuple(ordered), sha256(data).hexdigest()[:8])

    def render(
        self, data: RunData, *, variables: Mapping[str, Authored] | None = None, budget_tokens: int, count: CountTokens
    ) -> Rendered:
        """Write the messages within `budget_tokens`.

        Raises PromptInvalid for variables that are missing, unknown or not the operator's own text, and PromptTooLong
        when the authored sections and the user's message alone are over the budget.
        """
        given = variables or {}
        if missing := self.variables - given.keys():
            raise PromptInvalid(f"prompt {self.version} misses variables: {', '.join(sorted(missing))}")
        if unknown := given.keys() - self.variables:
            raise PromptInvalid(f"prompt {self.version} does not know variables: {', '.join(sorted(unknown))}")
        if strange := [name for name, value in given.items() if not isinstance(value, Authored)]:
            raise PromptInvalid(f"prompt {self.version} takes only the operator's own text for: {', '.join(strange)}")
        authored = [(section.kind, _fill(section.text, given)) for section in self.sections]
        uses = [SectionUse(kind, count(text), 1) for kind, text in authored]
        user_tokens = count(data.user)
        left = budget_tokens - sum(use.tokens for use in uses) - user_tokens - 2 * MESSAGE_TOKENS
        if left < 0:
            need = budget_tokens - left
            raise PromptTooLong(
                f"the message and its prompt need {need} tokens; the model takes {budget_tokens}", field="message"
            )
        uses.append(SectionUse("user", user_tokens, 1))

        tools, left = _take(data.tool_results, left, lambda result: count(_tool_text(result)) + MESSAGE_TOKENS)
        passages, left = _take(data.passages, left, lambda passage: passage_tokens(passage, count))
        newest_first, left = _take(
            data.history[::-1], left, lambda turn: count(turn.content) + MESSAGE_TOKENS, stop_at_first=True
        )
        history = newest_first[::-1]
        for kind, kept, offered in (
            ("tool_results", [_tool_text(result) for result in tools], data.tool_results),
            ("passages", [_passage_text(1, passage) for passage in passages], data.passages),
            ("history", [turn.content for turn in history], data.history),
        ):
            if offered:
                tokens = sum(count(text) for text in kept)
                uses.append(SectionUse(cast(SectionKind, kind), tokens, len(kept), len(offered) - len(kept)))
        messages = (
            Message("system", "\n\n".join(text for _, text in authored)),
            *(turn if turn.role == "user" else replace(turn, content=fenced(turn.content)) for turn in history),
            Message("user", _user_text(data.user, passages, tools)),
        )
        return Rendered(messages, tuple(passages), self.version, tuple(uses))


class PromptBook:
    """The prompts by name; the newest version unless one is pinned."""

    def __init__(self, prompts: Sequence[Prompt], *, pins: Mapping[str, int] | None = None) -> None:
        self._prompts = {(prompt.name, prompt.number): prompt for prompt in prompts}
        self._current = {name: max(n for other, n in self._prompts if other == name) for name, _ in self._prompts}
        for name, number in (pins or {}).items():
            if (name, number) not in self._prompts:
                raise Missing(f"there is no prompt {name}@{number}")
            self._current[name] = number

    @classmethod
    def packaged(cls, folder: Path = PACKAGED, *, pins: Mapping[str, int] | None = None) -> Self:
        """The prompts that ship with this version. Raises PromptInvalid for a file that cannot be read as one."""
        prompts = []
        for path in sorted(folder.glob("*.toml")):
            match = _FILE_NAME.fullmatch(path.name)
            if match is None:
                raise PromptInvalid(f"prompt file {path.name} is not named <name>@<version>.toml")
            prompts.append(Prompt.parse(path.read_bytes(), name=match["name"], number=int(match["version"])))
        return cls(prompts, pins=pins)

    def marked(self, mark: str) -> Self:
        """The same prompts, the mark in those whose answers people read.

        An answer that holds it shows that the model has repeated its instructions.
        """
        section = Section("format", f"Never write this mark: {mark}")
        prompts = [
            replace(prompt, sections=(*prompt.sections, section)) if prompt.name in ANSWERING else prompt
            for prompt in self._prompts.values()
        ]
        return type(self)(prompts, pins=self._current)

    def get(self, name: str) -> Prompt:
        if name not in self._current:
            raise Missing(f"there is no prompt {name}")
        return self._prompts[name, self._current[name]]

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._prompts.values())


def passage_tokens(passage: Passage, count: CountTokens) -> int:
    """What a passage takes in a prompt, with its number and title."""
    return count(_passage_text(99, passage)) + 2


def _section(label: str, entry: Mapping[str, Any]) -> Section:
    kind, text = entry.get("kind"), entry.get("text")
    if kind not in AUTHORED:
        raise PromptInvalid(
            f"prompt {label} has a section of kind {kind!r}; authors write {', '.join(sorted(AUTHORED))}"
        )
    if not isinstance(text, str) or not text.strip() or entry.keys() - {"kind", "text"}:
        raise PromptInvalid(f"section {kind} of prompt {label} needs a text and nothing else")
    return Section(kind, text.strip())


def _fill(text: str, variables: Mapping[str, Authored]) -> str:
    # One pass, so that a value which looks like a variable, or has doubled braces, stays as it is.
    return _FILLED.sub(lambda match: variables[match[1]] if match[1] else match[0][0], text)


def _take(
    items: Sequence[T], left: int, cost: Callable[[T], int], *, stop_at_first: bool = False
) -> tuple[list[T], int]:
    """The items that fit into `left` tokens, in their order, and what is left then.

    A history with a hole misleads a model, so its taking stops at the first turn that does not fit.
    """
    kept: list[T] = []
    for item in items:
        tokens = cost(item)
        if tokens > left:
            if stop_at_first:
                break
            continue
        kept.append(item)
        left -= tokens
    return kept, left


def _passage_text(number: int, passage: Passage) -> str:
    where = f"{passage.title}: {passage.heading}" if passage.heading else passage.title
    return f"[{number}] {fenced(where)}{mark(passage.trust)}\n{fenced(passage.text)}"


def _tool_text(result: ToolResult) -> str:
    return f"{fenced(result.name)} ({result.status}):\n{fenced(result.content)}"


def _user_text(user: str, passages: Sequence[Passage], tools: Sequence[ToolResult]) -> str:
    parts = []
    if passages:
        body = "\n\n".join(_passage_text(number, passage) for number, passage in enumerate(passages, 1))
        parts.append(fence("passages", body))
    if tools:
        parts.append(fence("tool_results", "\n\n".join(map(_tool_text, tools))))
    return "\n\n".join([*parts, user])
