"""Whom a document is for and where it came from, in words, and the form that says the first anew."""

from collections.abc import Mapping
from typing import Final

from markupsafe import Markup

from app.console.advice import Advice
from app.console.view import draw
from app.records import Principal
from app.services.store.records import DocumentRecord
from graphs.types import Trust

TRUSTS: Final[Mapping[Trust, str]] = {
    "operator": "The operator's own hand",
    "tenant": "A system of the tenant's",
    "untrusted": "Anybody: nobody has vouched for it",
}


def named(written: str) -> list[str]:
    """The groups of a field, separated by commas; none where it is empty."""
    return [name for part in written.split(",") if (name := part.strip())]


def may_restrict(who: Principal) -> bool:
    """Whether they can write for some groups alone: who writes a document is in one of those that it is for."""
    return who.is_owner or bool(who.groups)


def drawn_groups(record: DocumentRecord, who: Principal, *, written: str, notice: Advice | None = None) -> Markup:
    return draw(
        "regrouping",
        record=record,
        written=written,
        restricts=may_restrict(who),
        own=sorted(who.groups),
        notice=notice,
    )
