"""The Chat tab: asking, following the answer, its sources, deciding for a tool, and saying whether it was good."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

import gradio as gr
from markupsafe import Markup

from app.console.advice import Advice, advice_on
from app.console.pace import paced
from app.console.panel import EMPTY, panel, said
from app.console.reader import Reader, principal_of
from app.console.turn import Turn, drawn_sources
from app.console.view import draw
from app.console.welcome import WELCOME
from app.names import HANDBOOK
from app.records import Mode, Principal, RunRequest
from app.services.store.records import Rating
from app.workbench import Workbench
from graphs.errors import Conflict, Invalid, PilothouseError
from graphs.types import Decision

MODES: Final = [("Chat", "chat"), ("RAG", "rag"), ("Agent", "agent")]
SOURCE_EVENTS: Final = frozenset({"retrieval.completed", "run.completed", "run.failed", "approval.required"})
TURN_ACTS: Final = ("cite", "rate", "comment", "decide", "example", "sources", "inspect")
COMMENT_CHARS: Final = 2_000
DECISIONS: Final[Mapping[str, Decision]] = {"approve": "approve", "deny": "deny"}
RATINGS: Final[Mapping[str, Rating]] = {"up": "up", "down": "down"}

Update = dict[Any, Any]
Updates = AsyncGenerator[Update, None]
PRIVATE: Final[Mapping[str, Any]] = {
    # Console handlers are no API: programs use /api/ai, which has its own checks and its own documentation.
    "api_visibility": "private",
    "show_progress": "hidden",
    # Gradio's default of one call at a time would let one reader's stream block everybody else's.
    "concurrency_limit": None,
}


class ChatTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench, reader: Reader) -> None:
        self._bench, self._reader = bench, reader
        with gr.Row(elem_id="chat"):
            with gr.Column(elem_id="shelf", min_width=0):
                self.new = gr.Button("New conversation", elem_id="new", size="sm")
                self.shelf = panel(acts=("open", "forget"), elem_id="conversations")
            with gr.Column(elem_id="desk", min_width=0):
                with gr.Column(elem_id="transcript", min_width=0):
                    self.history = panel(_transcript([], mode="rag"), acts=TURN_ACTS, elem_id="history")
                    self.live = panel(acts=TURN_ACTS, elem_id="live")
                self._build_composer()
            with gr.Column(elem_id="beside", min_width=0):
                self.sources = panel(drawn_sources(None), acts=("cite", "passage", "sources"), elem_id="sources")
        self.conversation = gr.State("")
        self.run = gr.State("")

    def _build_composer(self) -> None:
        with gr.Column(elem_id="composer", min_width=0):
            self.message = gr.Textbox(
                label="Message",
                value="",
                placeholder=_placeholder("rag"),
                lines=1,
                max_lines=8,
                container=False,
                autofocus=True,
                elem_id="message",
                max_length=self._bench.settings.max_message_chars,
            )
            with gr.Row(elem_id="controls"):
                self.mode = gr.Radio(MODES, value="rag", label="Mode", container=False, elem_id="mode")
                self.collection = gr.Dropdown(
                    [("Handbook", HANDBOOK)], value=HANDBOOK, label="Collection", container=False, elem_id="collection"
                )
                self.model = gr.Dropdown(
                    [("Default model", "")], value="", label="Model", container=False, elem_id="model"
                )
                self.send = gr.Button("Send", variant="primary", elem_id="send", size="sm")
                self.stop = gr.Button("Stop", elem_id="stop", size="sm", visible=False)

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        asked = [self.mode, self.collection, self.model, self.conversation]
        page = [
            self.history,
            self.live,
            self.sources,
            self.message,
            self.send,
            self.stop,
            self.conversation,
            self.run,
            self.shelf,
        ]
        streams = [
            gr.on(
                [self.send.click, self.message.submit],
                self._send,
                [self.message, *asked],
                page,
                trigger_mode="once",
                **PRIVATE,
            ),
            self.history.example(self._example, asked, page, trigger_mode="once", **PRIVATE),
            self.history.decide(self._decide, [self.conversation], page, trigger_mode="once", **PRIVATE),
        ]
        self.new.click(self._new, [self.mode], page, cancels=streams, **PRIVATE)
        self.shelf.open(self._open, None, page, cancels=streams, **PRIVATE)
        self.shelf.forget(self._forget, [self.conversation, self.mode], page, cancels=streams, **PRIVATE)
        self.stop.click(self._stop, [self.run], [self.stop], **PRIVATE)
        self.mode.change(
            self._mode,
            [self.mode, self.conversation, self.run],
            [self.history, self.message, self.collection],
            **PRIVATE,
        )
        for shown in (self.history, self.live, self.sources):
            shown.cite(self._cite, None, [self.sources], **PRIVATE)
            shown.sources(self._show_sources, None, [self.sources], **PRIVATE)
        self.sources.passage(self._passage, None, [self.sources], **PRIVATE)
        for opinion in (self.history.rate, self.history.comment):
            opinion(self._rate, [self.conversation], [self.history], **PRIVATE)

    async def loaded(self, request: gr.Request) -> Update:
        """What a fresh page shows: the pickers, the conversations, and the one that the address names."""
        who = principal_of(request)
        collections = await self._bench.store.documents.collections(who.tenant_id, who.sight)
        names = [HANDBOOK, *(item.name for item in collections if item.name != HANDBOOK)]
        update: Update = {
            self.collection: gr.update(choices=[(_shown(name), name) for name in names]),
            self.model: gr.update(choices=[("Default model", ""), *((name, name) for name in self._models())]),
            self.shelf: await self._shelf(who, ""),
        }
        named = str(request.query_params.get("c") or "")
        return update | (await self._opened(who, named) if named else {})

    @property
    def page(self) -> list[Any]:
        """What `loaded` may update."""
        return [
            self.collection,
            self.model,
            self.shelf,
            self.history,
            self.live,
            self.sources,
            self.send,
            self.stop,
            self.conversation,
            self.run,
        ]

    # Asking

    async def _send(
        self, text: str, mode: Mode, collection: str, model: str, conversation: str, request: gr.Request
    ) -> Updates:
        if not text.strip():
            return
        who = principal_of(request)
        turn = Turn(text.strip(), mode)
        turns = await self._turns(who, conversation)
        yield {
            self.history: _transcript(turns, mode=mode, conversation=conversation, busy=True),
            self.live: turn.drawn(),
            self.sources: drawn_sources(turn),
            self.message: "",
            **self._running(True),
        }
        asked = RunRequest(
            message=text,
            mode=mode,
            conversation_id=conversation or None,
            collection=collection if mode != "chat" else None,
            model=model or None,
            feature="console",
        )
        try:
            turn.run_id = await self._bench.runner.start(who, asked)
        except PilothouseError as error:
            notice = advice_on(error)
            yield {
                self.history: _transcript(turns, mode=mode, conversation=conversation, notice=notice),
                self.live: EMPTY,
                self.sources: drawn_sources(None),
                self.message: text,
                **self._running(False),
            }
            return
        async with aclosing(self._follow(who, turn)) as updates:
            async for update in updates:
                yield update

    async def _example(
        self, mode: Mode, collection: str, model: str, conversation: str, event: gr.EventData, request: gr.Request
    ) -> Updates:
        async with aclosing(
            self._send(said(event, "message"), mode, collection, model, conversation, request)
        ) as updates:
            async for update in updates:
                yield update

    async def _decide(self, conversation: str, event: gr.EventData, request: gr.Request) -> Updates:
        who = principal_of(request)
        decision = DECISIONS.get(said(event, "decision"))
        try:
            if decision is None:
                raise Invalid("a decision is approve or deny", field="decision")
            seen = said(event, "binding") or None
            decided = await self._bench.runner.decide(who, said(event, "approval"), decision, seen=seen)
        except PilothouseError as error:
            turns = await self._turns(who, conversation)
            yield {self.history: _transcript(turns, conversation=conversation, notice=advice_on(error))}
            return
        if decided.waits:  # for a second person
            yield {self.history: _transcript(await self._turns(who, conversation), conversation=conversation)}
            return
        run = await self._reader.run(who, decided.run_id)
        turn = Turn.of(run, decided)
        turn.card, turn.last_number = None, await self._bench.store.runs.next_event_number(run.run_id) - 1
        turn.phase = f"Running {decided.tool}" if decision == "approve" else "Telling the agent"
        turns = [other for other in await self._turns(who, conversation) if other.run_id != run.run_id]
        yield {
            self.history: _transcript(turns, conversation=conversation, busy=True),
            self.live: turn.drawn(),
            **self._running(True),
        }
        async with aclosing(self._follow(who, turn)) as updates:
            async for update in updates:
                yield update

    async def _follow(self, who: Principal, turn: Turn) -> Updates:
        """Draw the turn as its events come, then the whole transcript from the store."""
        events = self._bench.runner.events(who, turn.run_id, turn.last_number)
        try:
            async with aclosing(paced(events)) as batches:
                async for batch in batches:
                    for event in batch:
                        turn.take(event)
                    update: Update = {self.run: turn.run_id, self.conversation: turn.conversation_id}
                    if any(event.type == "run.started" for event in batch):
                        update[self.shelf] = await self._shelf(who, turn.conversation_id)
                    if not turn.ended:  # the last event is drawn with the settled page, in one step
                        update[self.live] = turn.drawn()
                    if any(event.type in SOURCE_EVENTS for event in batch):
                        update[self.sources] = drawn_sources(turn)
                    yield update
        except PilothouseError as error:
            yield await self._opened(who, turn.conversation_id, notice=advice_on(error))
            return
        yield await self._opened(who, turn.conversation_id)

    async def _stop(self, run: str, request: gr.Request) -> Any:
        try:
            await self._bench.runner.cancel(principal_of(request), run)
        except (Conflict, Invalid):
            return gr.skip()  # it had just ended by itself, which is what was wanted
        return gr.update(interactive=False)

    # Conversations

    async def _open(self, event: gr.EventData, request: gr.Request) -> Updates:
        who = principal_of(request)
        async with aclosing(self._opening(who, said(event, "conversation"))) as updates:
            async for update in updates:
                yield update

    async def _opening(self, who: Principal, conversation: str) -> Updates:
        """The conversation as stored, and the run that is still in flight in it, if there is one."""
        yield await self._opened(who, conversation)
        for turn in await self._turns(who, conversation):
            if not turn.ended:
                yield self._running(True)
                async with aclosing(self._follow(who, turn)) as updates:
                    async for update in updates:
                        yield update

    async def _opened(self, who: Principal, conversation: str, notice: Advice | None = None) -> Update:
        try:
            turns = await self._turns(who, conversation)
        except PilothouseError as error:
            turns, conversation, notice = [], "", advice_on(error)
        in_flight = next((turn for turn in turns if not turn.ended), None)
        done = [turn for turn in turns if turn.ended]
        last = await self._reader.with_passages(who, turns[-1]) if turns else None
        return {
            self.history: _transcript(done, conversation=conversation, notice=notice, busy=in_flight is not None),
            self.live: in_flight.drawn() if in_flight else EMPTY,
            self.sources: drawn_sources(last),
            self.conversation: conversation,
            self.run: in_flight.run_id if in_flight else "",
            self.shelf: await self._shelf(who, conversation),
            **self._running(in_flight is not None),
        }

    async def _new(self, mode: Mode, request: gr.Request) -> Update:
        return {
            self.history: _transcript([], mode=mode),
            self.live: EMPTY,
            self.sources: drawn_sources(None),
            self.conversation: "",
            self.run: "",
            self.shelf: await self._shelf(principal_of(request), ""),
            **self._running(False),
        }

    async def _forget(self, current: str, mode: Mode, event: gr.EventData, request: gr.Request) -> Update:
        who, conversation = principal_of(request), said(event, "conversation")
        try:
            await self._bench.runner.erase(who, conversation)
            await self._bench.gateway.forget(who.tenant_id)
        except PilothouseError as error:
            return await self._opened(who, current, notice=advice_on(error))
        if conversation == current:
            return await self._new(mode, request)
        return {self.shelf: await self._shelf(who, current)}

    async def _mode(self, mode: Mode, conversation: str, run: str) -> Update:
        update: Update = {
            self.message: gr.update(placeholder=_placeholder(mode)),
            self.collection: gr.update(interactive=mode != "chat"),
        }
        return update if conversation or run else update | {self.history: _transcript([], mode=mode)}

    # Sources and opinions

    async def _cite(self, event: gr.EventData, request: gr.Request) -> Markup:
        return await self._reader.passage(principal_of(request), said(event, "run"), number=said(event, "number"))

    async def _passage(self, event: gr.EventData, request: gr.Request) -> Markup:
        return await self._reader.passage(principal_of(request), said(event, "run"), chunk_id=said(event, "chunk"))

    async def _show_sources(self, event: gr.EventData, request: gr.Request) -> Markup:
        who = principal_of(request)
        try:
            turn = await self._reader.turn(who, await self._reader.run(who, said(event, "run")))
        except PilothouseError:
            return drawn_sources(None)
        return drawn_sources(await self._reader.with_passages(who, turn))

    async def _rate(self, conversation: str, event: gr.EventData, request: gr.Request) -> Markup:
        who, rating = principal_of(request), RATINGS.get(said(event, "rating"))
        notice = None
        try:
            run = await self._reader.run(who, said(event, "run"))
            if rating is None:
                raise Invalid("a rating is up or down", field="rating")
            comment = said(event, "comment")[:COMMENT_CHARS]
            await self._bench.store.feedback.put(run.run_id, who.tenant_id, who.user_id, rating, comment)
        except PilothouseError as error:
            notice = advice_on(error)
        return _transcript(await self._turns(who, conversation), conversation=conversation, notice=notice)

    # Helpers

    async def _turns(self, who: Principal, conversation: str) -> list[Turn]:
        return await self._reader.turns(who, conversation) if conversation else []

    async def _shelf(self, who: Principal, current: str) -> Markup:
        return draw("shelf", conversations=await self._reader.conversations(who), current=current)

    def _models(self) -> list[str]:
        return [info.name for info in self._bench.gateway.models]

    def _running(self, running: bool) -> Update:
        return {self.send: gr.update(visible=not running), self.stop: gr.update(visible=running, interactive=True)}


def _transcript(
    turns: list[Turn],
    *,
    mode: Mode = "rag",
    conversation: str = "",
    notice: Advice | None = None,
    busy: bool = False,
) -> Markup:
    return draw(
        "transcript", turns=turns, conversation_id=conversation, notice=notice, busy=busy, welcome=WELCOME[mode]
    )


def _placeholder(mode: Mode) -> str:
    return {"chat": "Say something", "rag": "Ask the documents", "agent": "Ask the agent to do something"}[mode]


def _shown(collection: str) -> str:
    return "Handbook" if collection == HANDBOOK else collection
