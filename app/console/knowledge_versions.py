"""The Versions view of the Knowledge tab: what changed when, what the gate said, and which build answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import gradio as gr
from markupsafe import Markup

from app import knowledge
from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE
from app.console.knowledge_rebuild import cut, drawn_form
from app.console.panel import panel
from app.console.reader import principal_of
from app.console.sure import sorry, sure
from app.console.view import draw
from app.records import Principal
from app.services.retrieval.gate import Report
from app.services.retrieval.history import Change, Dropped, History
from app.services.retrieval.journal import Event, Why
from app.workbench import Workbench
from graphs.errors import PilothouseError

_ROLES: Final = {"live": "answers", "before": "before", "waiting": "waits"}
_WHY: Final[Mapping[Why, str]] = {
    "erasure": "It held text that was deleted, whose bytes had to leave the disk.",
    "rebuild": "Another was made in its place.",
    "age": "It waited for more than a day, and cost every write a second one.",
    "embedder": "It is of another embedder than the build that answers, and can take no write.",
}


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened to the collection's builds: a sentence, and what the gate found, if it did."""

    at: datetime
    words: str
    detail: str = ""
    tone: str = ""
    gate: Mapping[str, Any] | None = None


class VersionsPane:
    """Components and handlers of the view; made inside the tab."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Column(elem_id="kn-versions", min_width=0):
            self.table = panel(draw("reading"), acts=("promote", "back", "rebuild"), elem_id="kn-history")

    def listen(self, collection: gr.State, sheet: gr.HTML) -> None:
        self.table.promote(self._ask_promote, [collection], [sheet], **PRIVATE)
        self.table.back(self._ask_back, [collection], [sheet], **PRIVATE)
        self.table.rebuild(self._ask_rebuild, [collection], [sheet], **PRIVATE)

    async def drawn(
        self, who: Principal, collection: str, *, notice: Advice | None = None, report: Report | None = None
    ) -> Markup:
        """`report` is of a build that was judged just now and did not pass."""
        try:
            found = await knowledge.history(self._bench, who, collection)
        except PilothouseError as error:
            return _drawn(None, notice or advice_on(error))
        return _drawn(found, notice, report, writable=knowledge.may_write(who, collection))

    async def promote(self, who: Principal, collection: str) -> Markup:
        """The view after it, where a refusal has its figures."""
        try:
            report = await knowledge.promote(self._bench, who, collection)
        except PilothouseError as error:
            return await self.drawn(who, collection, notice=advice_on(error))
        return await self.drawn(who, collection, report=None if report.passed else report)

    async def roll_back(self, who: Principal, collection: str) -> Markup:
        try:
            await knowledge.roll_back(self._bench, who, collection)
        except PilothouseError as error:
            return await self.drawn(who, collection, notice=advice_on(error))
        return await self.drawn(who, collection)

    async def _ask_promote(self, collection: str, request: gr.Request) -> Markup:
        try:
            found = await knowledge.history(self._bench, principal_of(request), collection)
        except PilothouseError as error:
            return sorry(advice_on(error))
        return sure(
            "Promote the build that waits?",
            "It is asked the collection's golden questions first, and so is the build that answers now. If it finds as "
            "much, as fast, at a bearable size, it answers from then on; if not, nothing changes and you see why.",
            "The build before stays and takes every write, so that one click goes back to it.",
            act="promote",
            label="Judge and promote",
            about=found.waiting,
        )

    async def _ask_back(self, collection: str, request: gr.Request) -> Markup:
        try:
            found = await knowledge.history(self._bench, principal_of(request), collection)
        except PilothouseError as error:
            return sorry(advice_on(error))
        return sure(
            "Go back to the build before?",
            "It answers from now on, with every document written since. Nothing is lost: a second time goes forward "
            "again. Kept answers are dropped, since they quote what the other build found.",
            act="back",
            label="Roll back",
            about=found.before,
        )

    async def _ask_rebuild(self, collection: str, request: gr.Request) -> Markup:
        try:
            found = await knowledge.history(self._bench, principal_of(request), collection)
        except PilothouseError as error:
            return sorry(advice_on(error))
        live = next((each.version.recipe.chunker for each in found.changes if each.role == "live"), "")
        return drawn_form(collection, live, waits=bool(found.waiting))


def _drawn(
    found: History | None, notice: Advice | None, report: Report | None = None, *, writable: bool = False
) -> Markup:
    return draw(
        "versions",
        rows=() if found is None else timeline(found),
        history=found,
        newest={} if found is None else _newest(found),
        roles=_ROLES,
        changed=changed,
        cut=cut,
        notice=notice,
        refused=None if report is None else report.summary,
        writable=writable,
    )


def _newest(found: History) -> dict[str, str]:
    """By role of a build, its newest version."""
    return {change.role: change.version.label for change in reversed(found.changes)}


def timeline(found: History) -> list[Change | Told]:
    """Versions and what happened to the builds, the newest first."""
    told = [each for event in found.events if (each := _told(event, found)) is not None]
    rows: list[tuple[datetime, Change | Told]] = [(each.version.committed_at, each) for each in found.changes]
    rows += [(each.at, each) for each in (*told, *map(_gone, found.dropped))]
    return [row for _, row in sorted(rows, key=lambda pair: pair[0], reverse=True)]


def changed(change: Change) -> str:
    """The documents that a version changed; its chunks where they were not compared."""
    if change.gained is None:
        return "too large to compare" if change.chunks is None else "first held"
    if change.added is None:
        return f"{change.gained:+,} chunks"
    counts = ((change.added, "added"), (change.replaced, "replaced"), (change.removed, "removed"))
    return ", ".join(f"{number:,} {word}" for number, word in counts if number) or "tidied"


def _told(event: Event, found: History) -> Told | None:
    match event.happening:
        case "promoted":
            return _promoted(event)
        case "rolled_back":
            return Told(event.at, "Rolled back", "The build before answers again.", "waiting")
        case "erased" if found.erased.get(event.build, "").endswith(f"{event.version}"):
            first = found.erased[event.build]
            return Told(
                event.at,
                "Text was erased",
                f"Versions before {first} held it. A search as of one of them answers 410, version_gone.",
                "failed",
            )
        case "built" if found.waiting and event.build in found.waiting:
            return Told(
                event.at, "A new build waits", f"{found.waiting} takes every write until it is promoted.", "waiting"
            )
        case _:
            return None


def _gone(dropped: Dropped) -> Told:
    if dropped.build == "before":
        return Told(dropped.at, "No way back any more", f"The build before is gone. {_WHY[dropped.why]}", "waiting")
    again = "" if dropped.why == "rebuild" else " Rebuild to have one again."
    return Told(dropped.at, "The build that waited is gone", f"{_WHY[dropped.why]}{again}", "waiting")


def _promoted(event: Event) -> Told:
    if event.note == "purge":
        return Told(event.at, "Copied without erased text", "Its bytes are gone from the disk as well.")
    try:
        gate = json.loads(event.note)
    except ValueError:
        return Told(event.at, "Begun anew", event.note)
    return Told(event.at, "Promoted: the gate passed", "", "completed", gate)
