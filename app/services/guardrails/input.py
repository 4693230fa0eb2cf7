"""The input side of the guard: what is thought of a question, and what of it the model may see.

Patterns look first and take out what policy redacts, before anything is stored or traced; what is left is looked at by
the detectors that policy names. Each has its time and its way to fail: open lets the text pass, flagged; closed stops
the run. Verdicts name what was looked for and never what was found.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Final, cast

from app.config.guards import Detector, GuardRules, InputRules, PersonalKind, TopicsRule
from app.placeholders import Placeholders
from app.reading import Embedder
from app.services.guardrails.find import Found, find, replaced
from app.services.guardrails.injection import InjectionModel, windows
from app.services.guardrails.language import foreign, identifier
from app.services.guardrails.look import Failed, Look, looked
from app.services.guardrails.patterns import SECRETS, Pattern, notice
from app.services.guardrails.pii import PERSONAL
from app.services.guardrails.signs import signs
from app.services.guardrails.topics import Topics
from graphs.types import GuardAction, Message, Stage, Verdict

UNREAD: Final = "[a message that could not be looked at]"
THREAD_CHARS: Final = 4_000  # from here on a scan takes more than a millisecond or two, and leaves the loop
_NUMBERS: Final = frozenset({"card_number", "iban"})  # personal, though they stand in the table of secrets
_KEYS: Final = tuple(each for each in SECRETS if each.name not in _NUMBERS)
_PERSONAL: Final = (*(each for each in SECRETS if each.name in _NUMBERS), *PERSONAL)
_RISING: Final[tuple[GuardAction, ...]] = ("allow", "flag", "redact", "block")


class Detectors:
    """What all runs share: the models, and nothing of any text."""

    def __init__(self, embedder: Embedder) -> None:
        self.topics = Topics(embedder)
        self._embedder = embedder

    @cached_property
    def injection(self) -> InjectionModel:
        return InjectionModel(self._embedder)

    async def ready(self, rules: InputRules) -> None:
        """Load what the rules look with: a detector that is still loading when the first question comes is too slow."""
        if rules.language.action != "allow":
            await asyncio.to_thread(identifier)


class Intake:
    """Of one run. `embeds` says whether the run pays for its question's vector anyway."""

    def __init__(
        self, detectors: Detectors, rules: GuardRules | None = None, run_id: str = "", *, embeds: bool = False
    ) -> None:
        self.rules, self.withheld = rules or GuardRules(), Placeholders(run_id)
        self._detectors = detectors
        model = self.rules.input.injection.model
        self._modelled = model == "on" or (model == "auto" and embeds)
        self._taken: tuple[Verdict, ...] | None = None
        personal, secrets = self.rules.input.personal, self.rules.input.secrets
        self._actions: dict[str, GuardAction] = {each.name: secrets.action for each in _KEYS}
        self._actions |= {each.name: personal.of(cast(PersonalKind, each.name)) for each in _PERSONAL}

    @property
    def redacts(self) -> bool:
        return "redact" in self._actions.values()

    def traced(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """A span's attributes as policy lets them be written down."""
        if self.rules.telemetry == "as_sent":
            return attributes
        return {key: _noticed(value) for key, value in attributes.items()}

    async def take_in(self, question: str, history: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
        """Both as the model may see them; `screen` tells what was found in the question."""
        question, self._taken = await self._cleaned(question)
        turns = [replace(turn, content=(await self._cleaned(turn.content))[0]) for turn in history]
        return question, tuple(turns)

    async def screen(self, text: str) -> tuple[str, tuple[Verdict, ...]]:
        """The question as it may go on, and a verdict of each detector that policy lets look."""
        taken = self._taken
        if taken is None:
            text, taken = await self._cleaned(text)
        verdicts = list(taken)
        for name, rule, action, look in self._looks(text):
            if any(verdict.action == "block" for verdict in verdicts):
                break
            verdicts.append(_verdict(name, "input", action, rule.on_failure, await looked(name, rule.timeout_s, look)))
        return text, tuple(verdicts)

    async def screen_read(self, stage: Stage, texts: Sequence[str]) -> tuple[Verdict, ...]:
        """What is thought of passages (`retrieved`) or tool results (`tool`): told, and never a reason to stop."""
        rule = self.rules.read
        if rule.injection == "allow" or not texts:
            return ()
        found = await looked("injection", rule.timeout_s, partial(self._suspicions, "\n\n".join(texts)))
        return (_verdict("injection", stage, rule.injection, "open", found),)

    async def _cleaned(self, text: str) -> tuple[str, tuple[Verdict, ...]]:
        """The text with placeholders for what policy redacts."""
        rules, actions, verdicts = self.rules.input, self._actions, []
        for name, rule, patterns in (("secrets", rules.secrets, _KEYS), ("personal", rules.personal, _PERSONAL)):
            wanted = tuple(each for each in patterns if actions[each.name] != "allow")
            if not wanted:
                continue
            found = await looked(name, rule.timeout_s, partial(_scan, wanted, text))
            verdicts.append(_removal(name, rule, actions, found))
            if not isinstance(found, Failed):
                redacted = [each for each in found if actions[each.kind] == "redact"]
                text = replaced(text, redacted, self.withheld.placeholder)
            elif rule.on_failure == "closed":
                return UNREAD, tuple(verdicts)
        return text, tuple(verdicts)

    def _looks(self, text: str) -> Iterator[tuple[str, Detector, GuardAction, Look[Collection[str]]]]:
        rules = self.rules.input
        if rules.length.action != "allow":
            yield "length", rules.length, rules.length.action, partial(_too_long, text, rules.length.max_chars)
        if rules.injection.action != "allow":
            yield "injection", rules.injection, rules.injection.action, partial(self._suspicions, text)
        if rules.language.action != "allow":
            yield "language", rules.language, rules.language.action, partial(_foreign, text, rules.language.allowed)
        if rules.topics.action != "allow":
            yield "topics", rules.topics, rules.topics.action, partial(self._off_topic, text, rules.topics)

    async def _suspicions(self, text: str) -> tuple[str, ...]:
        found = signs(text) if len(text) < THREAD_CHARS else await asyncio.to_thread(signs, text)
        if self._modelled and await self._detectors.injection.score(text) >= self._detectors.injection.threshold:
            found = (*found, "likely_injection")
        return found

    async def _off_topic(self, text: str, rule: TopicsRule) -> tuple[str, ...]:
        pieces, topics = windows(text), self._detectors.topics
        denied = await topics.near(pieces, rule.denied, rule.threshold)
        if denied or not rule.allowed:
            return denied
        return () if await topics.near(pieces, rule.allowed, rule.threshold) else ("off_topic",)


def _noticed(value: Any) -> Any:
    """The same value with a notice in the place of each secret and personal datum in its texts."""
    match value:
        case str():
            return replaced(value, find((*_KEYS, *_PERSONAL), value), lambda kind, _: notice(kind))
        case Mapping():
            return {key: _noticed(item) for key, item in value.items()}
        case list() | tuple():
            return [_noticed(item) for item in value]
        case _:
            return value


async def _scan(patterns: Sequence[Pattern], text: str) -> tuple[Found, ...]:
    return find(patterns, text) if len(text) < THREAD_CHARS else await asyncio.to_thread(find, patterns, text)


async def _too_long(text: str, max_chars: int) -> tuple[str, ...]:
    return ("too_long",) if len(text) > max_chars else ()


async def _foreign(text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    found = await asyncio.to_thread(foreign, text, allowed)
    return (f"language_{found}",) if found else ()


def _removal(
    name: str, rule: Detector, actions: Mapping[str, GuardAction], found: Collection[Found] | Failed
) -> Verdict:
    if isinstance(found, Failed):
        return _verdict(name, "input", "flag", rule.on_failure, found)
    kinds = tuple(dict.fromkeys(each.kind for each in found))
    return Verdict(name, "input", max((actions[kind] for kind in kinds), key=_RISING.index, default="allow"), kinds)


def _verdict(name: str, stage: Stage, action: GuardAction, on_failure: str, found: Collection[str] | Failed) -> Verdict:
    if isinstance(found, Failed):
        return Verdict(name, stage, "block" if on_failure == "closed" else "flag", (found.how,))
    return Verdict(name, stage, action if found else "allow", tuple(found))
