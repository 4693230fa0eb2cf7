"""Which of a tenant's documents somebody sees: those for everyone, and those for a group that they are in.

`OPEN` is the default wherever a reader can be named: who forgets to say whose eyes these are shows too little, never
too much. `EVERYTHING` is the owner's, and that of work on a collection which shows nobody a text.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from graphs.errors import Invalid

EVERYONE: Final = "*"  # what the index keeps in the place of groups for a document that has none; no group's name
MAX_GROUP_CHARS: Final = 128
MAX_DOCUMENT_GROUPS: Final = 32
MAX_MEMBER_GROUPS: Final = 256  # a filter names each; directories cut their claims at about as many


@dataclass(frozen=True, slots=True)
class Sight:
    """`groups` are those of who looks; `everything` sees past them."""

    groups: frozenset[str] = frozenset()
    everything: bool = False

    def sees(self, allow_groups: Collection[str]) -> bool:
        """Whether a document that is for these groups is seen; one for none of them is for everyone."""
        return self.everything or not allow_groups or not self.groups.isdisjoint(allow_groups)


OPEN: Final = Sight()
EVERYTHING: Final = Sight(everything=True)


def names_groups(key: str) -> bool:
    """Whether metadata of this name would be taken for the groups that a document is for, which are told beside it."""
    return key.replace("_", "").lower() == "allowgroups"


def is_group(name: object) -> bool:
    return (
        isinstance(name, str)
        and 1 <= len(name) <= MAX_GROUP_CHARS
        and name.isprintable()
        and name == name.strip()
        and name != EVERYONE
    )


def checked_groups(names: Iterable[str], most: int, field: str) -> tuple[str, ...]:
    """The names, each once and in order. Raises Invalid."""
    found = tuple(sorted(set(names)))
    if len(found) > most:
        raise Invalid(f"at most {most} groups are named, not {len(found)}", field=field)
    if not all(map(is_group, found)):
        raise Invalid(
            f"a group's name is 1 to {MAX_GROUP_CHARS} printable characters without blanks around, and not *",
            field=field,
        )
    return found
