"""What a run keeps from its model: originals behind placeholders, and how they come back for the run's owner.

A placeholder is `[EMAIL_1_7KQ2M]`: capitals in square brackets are what models copy most faithfully, and the last part,
which belongs to the run, makes those of other runs and invented ones stand for nothing. Lives with the run alone.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from graphs.context import Withheld

_ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # none that could be read as another
_TAG_CHARS: Final = 5
_PLACEHOLDER: Final = re.compile(r"\[[A-Z][A-Z0-9_]{0,40}_\d{1,4}_[2-9A-Z]{5}\]")
_BEGUN: Final = re.compile(r"\[(?:[A-Z][A-Z0-9_]{0,60})?\Z")


class Placeholders:
    """Implements `graphs.context.Withheld`. The same original has the same placeholder throughout."""

    def __init__(self, run_id: str) -> None:
        digest = hashlib.sha256(f"withheld:{run_id}".encode()).digest()
        self._tag = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:_TAG_CHARS])
        self.originals: dict[str, str] = {}
        self._placeholders: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self.originals)

    def placeholder(self, kind: str, original: str) -> str:
        """What stands for the original from now on."""
        if (known := self._placeholders.get(original)) is not None:
            return known
        number = 1 + sum(placeholder.startswith(f"[{kind.upper()}_") for placeholder in self.originals)
        placeholder = f"[{kind.upper()}_{number}_{self._tag}]"
        self.originals[placeholder], self._placeholders[original] = original, placeholder
        return placeholder

    def recall(self, originals: Mapping[str, str]) -> None:
        """Take up again what an earlier leg of the run has kept."""
        self.originals |= originals
        self._placeholders |= {original: placeholder for placeholder, original in originals.items()}

    def restored(self, value: Any) -> Any:
        """The same value with the originals in all its texts: strings, and those inside lists, tuples and mappings."""
        if not self.originals:
            return value
        match value:
            case str():
                return _PLACEHOLDER.sub(lambda found: self.originals.get(found.group(), found.group()), value)
            case Mapping():
                return {key: self.restored(item) for key, item in value.items()}
            case list() | tuple():
                return type(value)(self.restored(item) for item in value)
            case _:
                return value

    def hidden(self, text: str) -> str:
        """The other way round: placeholders for the originals that are known."""
        for original, placeholder in self._placeholders.items():
            text = text.replace(original, placeholder)
        return text


class Restoring:
    """One streamed text in which placeholders may be cut anywhere; holds back no more than one could be."""

    def __init__(self, withheld: Withheld) -> None:
        self._withheld, self._held = withheld, ""

    def feed(self, text: str) -> str:
        text = self._held + text
        begun = _BEGUN.search(text)
        cut = begun.start() if begun else len(text)
        self._held = text[cut:]
        return str(self._withheld.restored(text[:cut]))

    def close(self) -> str:
        rest, self._held = self._held, ""
        return str(self._withheld.restored(rest))
