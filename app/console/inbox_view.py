"""The arguments of a tool call as fields that a person can change, and what was changed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphs.errors import Invalid


@dataclass(frozen=True, slots=True)
class Field:
    """`text` is what is shown or typed, `before` what was asked for if that is something else.

    A text is shown as it is, anything else as JSON. `key` names it in a form: an argument's own name is the model's.
    """

    key: str
    name: str
    text: str
    before: str = ""
    changed: bool = False
    is_text: bool = True


def fields(
    asked: Mapping[str, Any], decided: Mapping[str, Any] | None = None, typed: Mapping[str, str] | None = None
) -> list[Field]:
    """One an argument, in the order of the call; what a decision added or left out as well."""
    now = asked if decided is None else decided
    found = []
    for number, name in enumerate({**asked, **now}):
        before, after = _shown(asked, name), _shown(now, name)
        text = (typed or {}).get(name, after)
        is_text = isinstance(asked.get(name, now.get(name)), str)
        found.append(Field(f"value-{number}", name, text, before, before != after, is_text))
    return found


def edited(asked: Mapping[str, Any], typed: Mapping[str, str]) -> dict[str, Any] | None:
    """The arguments as typed; None where nothing was changed. Raises Invalid for what is no JSON."""
    told = {name: _value(name, value, typed.get(name, _text(value))) for name, value in asked.items()}
    return None if told == dict(asked) else told


def left(seconds: float) -> str:
    """How much time there is, in one unit rounded down; empty where there is none."""
    for unit, size_s in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        if (whole := int(seconds // size_s)) > 0:
            return f"{whole} {unit}{'' if whole == 1 else 's'}"
    return ""


def _value(name: str, asked: Any, typed: str) -> Any:
    # A browser ends the lines of a form with CR and LF.
    text = typed.replace("\r\n", "\n")
    if isinstance(asked, str):
        return asked if text == asked.replace("\r\n", "\n") else text
    if text == _text(asked):
        return asked
    try:
        return json.loads(text)
    except ValueError as error:
        raise Invalid(f"{name} is no JSON: {error}", field=name) from error


def _shown(arguments: Mapping[str, Any], name: str) -> str:
    return _text(arguments[name]) if name in arguments else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
