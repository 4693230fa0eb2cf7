"""The only door to a graph: run, stream, decide, cancel, and what becomes of runs when the process ends.

A run is a task of its own. Readers attach to its events and may leave and come back; a run that nobody has read for
`reattach_grace_s` is cancelled. Whatever happens, `_settle` writes the run's row, its events, its spans and its
message in one transaction before the last event is sent.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from app.card import RunFacts, card, card_error, event
from app.checkpoints import thread_id
from app.decisions import Decisions
from app.fleet import Alone, Fleet
from app.ids import new_id
from app.live import LAST_EVENTS, LiveRun
from app.readback import card_back, read_back
from app.records import AnswerCard, CardUsage, Payer, Principal, RunEvent, RunRequest, RunStatus
from app.services.gateway.meter import MeteredGateway
from app.services.gateway.ports import FreeTicket, OpenDesk, Ticket
from app.services.store.database import StoreUnavailable
from app.services.store.records import ApprovalRecord, MessageRecord, RunFilter, RunRecord
from app.services.store.store import Store
from app.telemetry.logs import log_run
from app.telemetry.spans import RunTrace
from graphs.catalog import fingerprint
from graphs.context import Guard, RunContext, Withheld
from graphs.errors import (
    Cancelled,
    Conflict,
    Forbidden,
    GraphChanged,
    Interrupted,
    Invalid,
    PilothouseError,
    UpstreamTimeout,
)
from graphs.events import Event
from graphs.types import Decision, Message, Role, ToolProposal

log = logging.getLogger("pilothouse.runner")

TITLE_CHARS: Final = 80


@dataclass(frozen=True, slots=True)
class Job:
    """What a run needs to be driven, new or resumed. `earlier` is the card of the part that already ran."""

    run_id: str
    conversation_id: str
    principal: Principal
    request: RunRequest
    created_at: datetime
    earlier: AnswerCard | None = None


MakeContext = Callable[[Job, RunTrace], tuple[RunContext, MeteredGateway]]


@dataclass(slots=True)
class _Leg:
    """The mutable part of driving a run once."""

    job: Job
    live: LiveRun
    trace: RunTrace
    gateway: MeteredGateway
    process_id: str
    guard: Guard
    message: str
    state: Mapping[str, Any] = field(default_factory=dict)
    error: PilothouseError | None = None
    stopped: PilothouseError | None = None
    interrupts: tuple[Any, ...] = ()

    @property
    def payer(self) -> Payer:
        return _payer(self.job)

    def tell(self, happened: Event) -> None:
        self.live.emit(*event(happened))


class Runner:
    """Drives the compiled graphs. Made and closed by the workbench."""

    def __init__(
        self,
        *,
        store: Store,
        graphs: Mapping[str, CompiledStateGraph[Any, RunContext, Any, Any]],
        make_context: MakeContext,
        clock: Callable[[], datetime],
        run_timeout_s: float,
        reattach_grace_s: float,
        decisions: Decisions,
        safe_answer: Callable[[str], str],
        history_messages: int = 12,
        max_message_chars: int = 8_000,
        admit: Callable[[Payer], Awaitable[Ticket]] | None = None,
        barred: Callable[[Payer], PilothouseError | None] = lambda _: None,
        ended: Callable[[AnswerCard], None] = lambda _: None,
        fleet: Fleet | None = None,
    ) -> None:
        """`admit` lets a new run in and holds its place; `barred` says why somebody's runs may not go on just now.
        `safe_answer` is what a tenant's users read in the place of an answer where policy or a failure stopped the run.

        `ended` hears of each run that has been written down, ended or waiting. Without a `fleet` this is the only
        process.
        """
        self._store, self._graphs, self._make_context, self._clock = store, graphs, make_context, clock
        self._run_timeout_s, self._grace_s = run_timeout_s, reattach_grace_s
        self.decisions, self._safe_answer = decisions, safe_answer
        self._history_messages, self._max_message_chars = history_messages, max_message_chars
        self._admit, self._barred, self._ended = admit or OpenDesk().admit, barred, ended
        self._fleet = fleet or Fleet(store, Alone(), bound_s=run_timeout_s, grace_s=reattach_grace_s)
        self._driving: set[str] = set()  # from before the row says so until after it says otherwise
        self._legs: dict[str, _Leg] = {}
        self._live: dict[str, LiveRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    # Asking

    async def start(
        self,
        principal: Principal,
        request: RunRequest,
        *,
        watched: bool = True,
        admitted: bool = False,
        told: Callable[[Mapping[str, str]], object] | None = None,
        run_id: str | None = None,
    ) -> str:
        """Begin a run and give its id; the answer comes through `events` or `card`.

        A run that is not `watched` goes on without readers; one that is `admitted` has passed the desk at another door.
        `told` gets the headers that say how the caller's limits stand. A `run_id` of the caller's own, a fresh one of
        `new_id`, is for who has to know it before there is a run. Raises Invalid, Missing (conversation, collection or
        model), Forbidden, QuotaExhausted.
        """
        if not principal.may("chat"):
            raise Forbidden("this key may not run graphs; it needs the scope chat")
        message = self._checked(request)
        tenant, user = principal.tenant_id, principal.user_id
        run_id, now = run_id or new_id(), self._clock()
        history: tuple[Message, ...] = ()
        conversation_id = request.conversation_id
        if conversation_id is not None:
            await self._store.conversations.get(conversation_id, tenant, user)
            turns = await self._store.conversations.messages(conversation_id, tenant, user, self._history_messages)
            history = tuple(_message(turn) for turn in turns)
        trace = RunTrace(run_id, clock=self._clock)
        job = Job(run_id, conversation_id or "", principal, request, now)
        context, gateway = self._make_context(job, trace)
        sent, history = await context.guard.take_in(message, history)
        kept = message if context.guard.keeps_originals else sent
        await gateway.settle_in()
        ticket: Ticket = FreeTicket()
        if not admitted:
            ticket = await self._admit(_payer(job))
        if told is not None:
            told(ticket.headers)
        try:
            state = {"question": sent, "history": history}
            return await self._begin(job, kept, state, trace, context, gateway, ticket, watched=watched)
        except BaseException:
            ticket.release()
            raise

    async def _begin(
        self,
        job: Job,
        message: str,
        state: Mapping[str, Any],
        trace: RunTrace,
        context: RunContext,
        gateway: MeteredGateway,
        ticket: Ticket,
        *,
        watched: bool,
    ) -> str:
        """Write an admitted run down and set it off; its ticket is released when it ends.

        `message` is what is kept of the user's; the graph begins with `state`.
        """
        tenant, user, run_id = job.principal.tenant_id, job.principal.user_id, job.run_id
        request, conversation_id = job.request, job.conversation_id
        title: str | None = None
        if not conversation_id:
            title, conversation_id = " ".join(message.split())[:TITLE_CHARS], new_id()
            job = replace(job, conversation_id=conversation_id)
        process_id = self._fleet.process_id
        self._driving.add(run_id)
        try:
            # Last of what can be refused, so that a refusal leaves nothing behind.
            await self._store.runs.start(
                run_id=run_id,
                tenant_id=tenant,
                user_id=user,
                conversation_id=conversation_id,
                mode=request.mode,
                message=message,
                feature=request.feature,
                key_id=job.principal.key_id,
                created_at=job.created_at,
                asked={
                    "collection": request.collection,
                    "model": request.model,
                    "where": request.where,
                    "response_schema": request.response_schema,
                },
                opens=title,
                process_id=process_id,
                groups=sorted(job.principal.groups),
            )
            if request.conversation_id is not None:
                await self._supersede(job)
        except BaseException:
            self._driving.discard(run_id)
            raise
        live = self._open(job, context)
        live.emit("run.started", {"requestId": run_id, "conversationId": conversation_id, "mode": request.mode})
        leg = _Leg(job, live, trace, gateway, process_id, context.guard, message)
        if (withheld := context.guard.withheld) is not None:
            state = {**state, "withheld": withheld.originals}
        await self._spawn(leg, context, state, watched=watched)
        self._tasks[run_id].add_done_callback(lambda _: ticket.release())
        return run_id

    async def run(self, principal: Principal, request: RunRequest) -> AnswerCard:
        """Run to the end, or to an approval. A failed run gives its card too: look at `status` and `error`."""
        return await self.attend(principal, await self.start(principal, request))

    async def attend(self, principal: Principal, run_id: str) -> AnswerCard:
        """Read a run to its end, or to an approval, and give its card. Raises Missing."""
        live = self._live_for(principal, run_id)
        if live is not None:
            await live.attend()
            shown = live.card or await self.card(principal, run_id)
            return shown if (withheld := _owners(live, principal)) is None else card_back(shown, withheld)
        async with aclosing(self.events(principal, run_id)) as events:
            async for _ in events:
                pass
        return await self.card(principal, run_id)

    def events(self, principal: Principal, run_id: str, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """The run's events numbered above `after`: stored ones, then those of the part in flight as they come, from
        whatever process drives it. Its owner reads in them what was withheld from the model."""
        live = self._live_for(principal, run_id)
        if live is None or (withheld := _owners(live, principal)) is None:
            return self._events(principal, run_id, after)
        return read_back(self._events(principal, run_id, 0), withheld, after)

    async def _events(self, principal: Principal, run_id: str, after: int) -> AsyncGenerator[RunEvent, None]:
        live = self._live_for(principal, run_id)
        if live is not None and live.from_the_start:
            async with aclosing(live.read(after)) as whole:
                async for item in whole:
                    yield item
            return
        record = await self._record(principal, run_id)
        live = live or self._live.get(run_id)
        stored = await self._store.runs.events(run_id, record.tenant_id, after)
        last = after
        for item in stored:
            last = item.number
            yield item
        if live is None and not record.process_id:
            return
        async with aclosing(self._fleet.events(record, last) if live is None else live.read(last)) as fresh:
            async for item in fresh:
                yield item

    async def card(self, principal: Principal, run_id: str) -> AnswerCard:
        """The answer card as it stands. Raises Missing."""
        record = await self._record(principal, run_id)
        if record.card is None:
            return card(_bare_facts(record), {}, status="running")
        if record.status == "waiting" and record.process_id:
            return record.card.model_copy(update={"status": "running", "pending_approval": None})
        return record.card

    async def cancel(self, principal: Principal, run_id: str) -> None:
        """Stop a run that is in flight or waits. Raises Missing, and Conflict for one that has ended."""
        record = await self._record(principal, run_id)
        task = self._tasks.get(run_id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            return
        was_driven = await self._fleet.cancel(run_id)
        if not await self._call_off(record, "the run was cancelled") and not was_driven:
            raise Conflict(f"run {run_id} has ended as {record.status}")

    async def erase(self, principal: Principal, conversation_id: str) -> None:
        """Remove a conversation of the caller's, and what its runs had come to. Raises Missing."""
        tenant_id = principal.tenant_id
        for run_id in await self._store.conversations.delete(conversation_id, tenant_id, principal.user_id):
            for mode in self._graphs:
                await self._forget(tenant_id, run_id, mode)

    def stop(self, whose: Callable[[Payer], bool], error: PilothouseError) -> int:
        """Cancel the runs in flight of those payers; they end with `error`. Gives how many. Waiting runs stay."""
        legs = [leg for leg in self._legs.values() if whose(leg.payer)]
        for leg in legs:
            self._stop(leg, error)
        return len(legs)

    # Approvals

    async def decide(
        self,
        principal: Principal,
        approval_id: str,
        decision: Decision,
        *,
        arguments: Mapping[str, Any] | None = None,
        comment: str = "",
        seen: str | None = None,
    ) -> ApprovalRecord:
        """Decide once; the run goes on in the background once all have spoken that have to.

        `seen` is the binding of the call as the caller was shown it. Raises Missing, Conflict, Forbidden, Invalid, and
        GraphChanged for a run that another version began, which ends with that.
        """
        if not principal.may("approvals"):
            raise Forbidden("this key may not decide approvals; it needs the scope approvals")
        pending = await self._store.approvals.get(approval_id, principal.tenant_id)
        record = await self._store.runs.get(pending.run_id, principal.tenant_id, None)
        if record.status != "waiting":
            raise Conflict(f"run {pending.run_id} does not wait any more; it is {record.status}")
        if (error := self._barred(_payer(await self._job(record)))) is not None:
            raise error  # nothing is decided: the approval is there when its owner may call again
        if pending.waits and (changed := _changed(record)) is not None:
            await self._end_changed(record, changed)
            raise changed
        if arguments is not None:
            await self._check_arguments(record, pending, arguments)
        decided = await self.decisions.decide(
            principal, approval_id, decision, arguments=arguments, comment=comment, seen=seen
        )
        if not decided.waits:
            await self._resume(record, decided)
        return decided

    async def recover(self) -> None:
        """After a start: take over what dead processes left in flight, and go on with decided runs."""
        await self.take_over()
        await self.go_on()

    async def take_over(self) -> None:
        """End the runs whose process has died, but go on with those that had come to an approval."""
        for record in await self._fleet.abandoned(self._driving):
            if record.cancel_asked:
                await self._bury(record, Cancelled("the run was cancelled"))
            elif record.status == "running":
                await self._bury(record, Interrupted("the server stopped while this run was in flight"))
            else:
                await self._resume_decided(record)

    async def go_on(self) -> None:
        """Resume waiting runs whose approval is decided or past its time."""
        await self.decisions.sweep()
        for run_id in await self._store.runs.resumable():
            record = await self._store.runs.load(run_id)
            if not record.process_id:  # else another process has gone on with it since
                await self._resume_decided(record)

    async def heed(self) -> None:
        """Cancel those of the runs in flight that were cancelled at another process."""
        if not self._tasks:
            return
        for run_id in await self._store.leases.cancels_asked():
            if (task := self._tasks.get(run_id)) is not None:
                task.cancel()

    async def close(self) -> None:
        """Cancel what is in flight and wait until it is written down."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    # Driving

    def _checked(self, request: RunRequest) -> str:
        if request.mode not in self._graphs:
            raise Invalid(f"mode must be one of {', '.join(sorted(self._graphs))}", field="mode")
        message = request.message.strip()
        if not message:
            raise Invalid("the message is empty", field="message")
        if len(message) > self._max_message_chars:
            raise Invalid(
                f"the message has {len(message)} characters; {self._max_message_chars} are allowed", field="message"
            )
        return message

    def _open(self, job: Job, context: RunContext, first_number: int = 1) -> LiveRun:
        who = job.principal
        relay = self._fleet.relay
        live = LiveRun(
            job.run_id,
            tenant_id=who.tenant_id,
            user_id=who.user_id,
            first_number=first_number,
            tell=None if relay is None else relay.tell,
            withheld=context.guard.withheld,
        )
        self._live[job.run_id] = live
        return live

    async def _spawn(self, leg: _Leg, context: RunContext, graph_input: Any, *, watched: bool) -> None:
        task = asyncio.create_task(self._drive(leg, context, graph_input), name=f"run {leg.job.run_id}")
        self._tasks[leg.job.run_id], self._legs[leg.job.run_id] = task, leg
        if watched:
            # Most runs end long before they could be called unread, and a timer costs less than a task that waits.
            watching = asyncio.get_running_loop().call_later(self._grace_s, self._begin_watch, leg.live, task)
            task.add_done_callback(lambda _: watching.cancel())
        # A task that is cancelled before its first step never runs at all, and would settle nothing.
        await asyncio.sleep(0)
        if (error := self._barred(leg.payer)) is not None:
            self._stop(leg, error)  # switched off since it was let in, when `stop` did not know of it yet

    def _stop(self, leg: _Leg, error: PilothouseError) -> None:
        leg.stopped = error
        if (task := self._tasks.get(leg.job.run_id)) is not None:
            task.cancel()

    def _begin_watch(self, live: LiveRun, task: asyncio.Task[None]) -> None:
        watcher = asyncio.create_task(self._watch(live, task), name=f"watch {live.run_id}")
        task.add_done_callback(lambda _: watcher.cancel())

    async def _watch(self, live: LiveRun, task: asyncio.Task[None]) -> None:
        """Cancel a run that nobody has read for the grace period, here or at another process."""
        reads, asked_at = 0, -math.inf
        while True:
            now = time.monotonic()
            unread_s = 0.0 if live.readers else now - max(live.unread_since, asked_at)
            if unread_s < self._grace_s:
                await asyncio.sleep(self._grace_s - unread_s)
                continue
            before, asked_at = reads, now
            with suppress(StoreUnavailable):  # who cannot ask lets it go on
                reads = await self._fleet.reads(live.run_id)
                if reads == before and not live.readers:
                    task.cancel()
                    return

    async def _check_arguments(self, record: RunRecord, pending: ApprovalRecord, arguments: Mapping[str, Any]) -> None:
        """Arguments that a person changed have to fit the tool as much as a model's."""
        context, _ = self._make_context(await self._job(record), RunTrace(record.run_id, clock=self._clock))
        refused = context.toolbox.refusal(ToolProposal(pending.interrupt_id, pending.tool, arguments))
        if refused is not None:
            raise Invalid(refused.content, field="arguments")

    async def _job(self, record: RunRecord) -> Job:
        """The job of a run that goes on, with the rights of the one who asked and not of the one who approved: what
        their key may by now, or what their token could see then."""
        scopes, groups = {"chat"}, record.groups
        if record.key_id:
            key = await self._store.keys.find(record.key_id)
            scopes |= set(key.scopes if key else ())
            groups = key.groups if key else ()
        principal = Principal(record.tenant_id, record.user_id, frozenset(scopes), record.key_id, frozenset(groups))
        request = RunRequest(
            record.message, record.mode, record.conversation_id, feature=record.feature, **record.asked
        )
        return Job(record.run_id, _conversation(record), principal, request, record.created_at, record.card)

    async def _resume_decided(self, record: RunRecord) -> None:
        approvals = await self._store.approvals.of_run(record.run_id, record.tenant_id)
        await self._resume(record, approvals[-1])

    async def _resume(self, record: RunRecord, decided: ApprovalRecord) -> None:
        """Go on with a waiting run, unless another does: of all processes the one that gets the lease."""
        run_id, process_id = record.run_id, self._fleet.process_id
        job = await self._job(record)
        if run_id in self._driving:
            return
        if self._barred(_payer(job)) is not None:
            return  # its tool may not act now; the next sweep asks again
        if (changed := _changed(record)) is not None:
            await self._end_changed(record, changed, decided=decided.approval_id)
            return
        trace = RunTrace(run_id, clock=self._clock)
        context, gateway = self._make_context(job, trace)
        self._driving.add(run_id)
        try:
            if not await self._store.leases.take(run_id, process_id, after=record.process_id):
                self._driving.discard(run_id)
                return
            live = self._open(job, context, await self._store.runs.next_event_number(run_id))
        except BaseException:
            self._driving.discard(run_id)
            raise
        leg = _Leg(job, live, trace, gateway, process_id, context.guard, record.message)
        said = {
            "decision": decided.decision,
            "arguments": decided.decided_arguments,
            "binding": decided.binding,
            "comment": decided.comment or ("nobody decided in time" if decided.state == "expired" else ""),
        }
        # By the id of the question: an answer to an earlier one is none to that which the run has come to since. Of a
        # process that died before it had written the wait down, the question may stand without any.
        answers = {} if decided.waits else {decided.interrupt_id: said}
        await self._spawn(leg, context, Command(resume=answers), watched=False)

    async def _end_changed(self, record: RunRecord, changed: GraphChanged, *, decided: str = "") -> None:
        """End a run that waited over a change of its graph; nothing of it is done, and people are told.

        Unless a process of its own version goes on with it at the same moment.
        """
        if await self._bury(record, changed, decided=decided):
            await self._store.escalations.create(record.run_id, record.tenant_id, "the graph has changed", changed.code)

    async def _call_off(self, record: RunRecord, why: str) -> bool:
        """End a run that waits and that nobody drives."""
        waits = record.status == "waiting" and not record.process_id
        return waits and await self._bury(record, Cancelled(why))

    async def _supersede(self, job: Job) -> None:
        """A new message takes the place of what its conversation still waited for."""
        mine = RunFilter(conversation_id=job.conversation_id, status="waiting")
        page = await self._store.runs.list(job.principal.tenant_id, job.principal.user_id, mine)
        for record in page.items:
            await self._call_off(record, "a newer message of its conversation took its place")

    async def _drive(self, leg: _Leg, context: RunContext, graph_input: Any) -> None:
        job = leg.job
        try:
            async with asyncio.timeout(self._run_timeout_s):
                with leg.trace.root(job.request.mode, conversation_id=job.conversation_id, mode=job.request.mode):
                    await self._step_through(leg, context, graph_input)
        except PilothouseError as error:
            leg.error = error
        except TimeoutError:
            leg.error = UpstreamTimeout(f"the run took longer than {self._run_timeout_s:g} s")
        except asyncio.CancelledError:
            stopped = Interrupted("the server was stopped") if self._closing else Cancelled("the run was cancelled")
            leg.error = leg.stopped or stopped
        except Exception:
            # The edge of a run: whatever a library threw is recorded here and never becomes answer text.
            log.exception("run failed", extra={"run_id": job.run_id})
            leg.error = PilothouseError("the run failed for a reason that the log names")
        # Settling survives a second cancel: what the model said has been spent and must be written down.
        settling = asyncio.create_task(self._settle(leg), name=f"settle {job.run_id}")
        while not settling.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({settling})
        if failure := settling.exception():
            # The row stays as it was, so that it is found abandoned and ended; the run's readers learn it now.
            log.error("run could not be stored", extra={"run_id": job.run_id}, exc_info=failure)
            unstored = PilothouseError("the run could not be stored")
            leg.live.emit("run.failed", {"error": card_error(unstored).model_dump(by_alias=True)})
        for known in (self._live, self._tasks, self._legs):
            known.pop(job.run_id, None)
        self._driving.discard(job.run_id)
        leg.live.close()

    async def _step_through(self, leg: _Leg, context: RunContext, graph_input: Any) -> None:
        mode = leg.job.request.mode
        graph = self._graphs[mode]
        config: Any = {"recursion_limit": 60}
        if graph.checkpointer is not None:
            config["configurable"] = {"thread_id": thread_id(context.tenant_id, context.run_id)}
            if isinstance(graph_input, Command):
                snapshot = await graph.aget_state(config)
                if snapshot.created_at is None:
                    raise Interrupted("what this run had come to is not in the checkpoints")
                leg.state = snapshot.values
                if (withheld := leg.guard.withheld) is not None:
                    withheld.recall(leg.state.get("withheld", {}))
                if not snapshot.next:
                    return  # the graph had ended, the row had not: a process died in between
                if not snapshot.interrupts:
                    graph_input = None  # it died after the decision had been taken in
                elif not {asked.id for asked in snapshot.interrupts} & set(graph_input.resume or ()):
                    leg.interrupts = snapshot.interrupts  # or had come to its next question, which nobody has answered
                    return
        stream: Any = graph.astream(
            graph_input,
            config,
            # Events go to their readers as nodes write them: LangGraph's own way, a queue and a task that waits for it,
            # costs a tenth of a run.
            context=replace(context, tell=leg.tell),
            stream_mode="values",
            durability="sync" if graph.checkpointer is not None else None,
        )
        async with aclosing(stream) as values:
            async for state in values:
                leg.interrupts = state.get("__interrupt__", ())
                leg.state = {key: value for key, value in state.items() if key != "__interrupt__"}

    async def _settle(self, leg: _Leg) -> None:
        """Write the run down, then send its last event."""
        job, live = leg.job, leg.live
        approval: ApprovalRecord | None = None
        status: RunStatus = "completed"
        if leg.error is not None:
            status = "cancelled" if isinstance(leg.error, Cancelled) else "failed"
        elif leg.interrupts:
            status = "waiting"
            asked = leg.interrupts[0]
            approval = await self._ask(job, asked)
        elif leg.state.get("blocked"):
            status = "blocked"
        finished = card(
            self._facts(leg),
            leg.state,
            status=status,
            error=leg.error,
            approval_id=None if approval is None else approval.approval_id,
        )
        finished = self._safely(finished, job.principal.tenant_id)
        shown = finished.model_dump(mode="json", by_alias=True)
        if approval is not None:
            asked_value = leg.interrupts[0].value
            last: tuple[str, dict[str, Any]] = (
                "approval.required",
                {
                    "approvalId": approval.approval_id,
                    "callId": asked_value["call_id"],
                    "tool": approval.tool,
                    "arguments": dict(approval.arguments),
                    "risk": approval.risk,
                    "needs": approval.needs,
                    "card": shown,
                },
            )
        elif finished.error is not None:
            last = ("run.failed", {"error": finished.error.model_dump(by_alias=True), "card": shown})
        else:
            last = ("run.completed", {"card": shown})
        closing = RunEvent(live.next_number, *last)
        reasons = _for_people(finished)
        if leg.gateway.failed_over is not None and not (job.earlier is not None and job.earlier.without_model):
            reasons.append(("no model answered", leg.gateway.failed_over.code))
        for reason, detail in reasons:
            await self._store.escalations.create(job.run_id, job.principal.tenant_id, reason, detail)
        answer = finished.answer
        if leg.guard.withheld is not None and leg.guard.keeps_originals:
            answer = leg.guard.withheld.restored(answer)
        says = [("assistant", answer)] if status in {"completed", "blocked"} and answer else []
        stored = await self._store.runs.finish(
            job.run_id,
            job.principal.tenant_id,
            finished,
            events=[*live.events, closing],
            spans=[replace(span, attributes=leg.guard.traced(span.attributes)) for span in leg.trace.records],
            message_appends=[("user", leg.message), *says] if job.earlier is None else says,
            held_by=leg.process_id,
        )
        if self._fleet.relay is not None:
            self._fleet.relay.end(job.run_id, closing.number)
        if status != "waiting" or not stored:
            await self._forget(job.principal.tenant_id, job.run_id, job.request.mode)
        log_run(finished, tenant_id=job.principal.tenant_id, user_id=job.principal.user_id)
        self._ended(finished)
        if stored:
            live.card = finished
        live.emit(*last)

    async def _ask(self, job: Job, asked: Any) -> ApprovalRecord:
        """Have people asked what the graph's interrupt asks."""
        value, tenant_id = asked.value, job.principal.tenant_id
        terms = self.decisions.asked(tenant_id, value["tool"], value["risk"], value["needs"])
        return await self._store.approvals.create(
            run_id=job.run_id,
            interrupt_id=asked.id,
            tenant_id=tenant_id,
            user_id=job.principal.user_id,
            tool=value["tool"],
            arguments=value["arguments"],
            risk=value["risk"],
            expires_at=terms.expires_at,
            call_id=value["call_id"],
            definition=value["definition"],
            needs=terms.needs,
            reasons=value["reasons"],
            origins=value["origins"],
        )

    def _safely(self, finished: AnswerCard, tenant_id: str) -> AnswerCard:
        """With the sentence that its user reads in the place of an answer, if it failed."""
        said = self._safe_answer(tenant_id) if finished.status == "failed" else ""
        return finished.model_copy(update={"safe_answer": said}) if said else finished

    async def _forget(self, tenant_id: str, run_id: str, mode: str) -> None:
        """Drop the checkpoints of a run that is over; its row and spans hold what may be asked of it later.

        A run that another process drives by now keeps them. Where they cannot be dropped, a sweep does it later.
        """
        checkpointer = self._graphs[mode].checkpointer
        if not isinstance(checkpointer, BaseCheckpointSaver):
            return
        try:
            if not await self._store.runs.is_open(run_id):
                await checkpointer.adelete_thread(thread_id(tenant_id, run_id))
        except PilothouseError as error:
            log.warning("checkpoints were not dropped yet", extra={"requestId": run_id, "cause": error.message})

    def _facts(self, leg: _Leg) -> RunFacts:
        job, gateway, earlier = leg.job, leg.gateway, leg.job.earlier
        used, before = gateway.usage, earlier.usage if earlier else CardUsage()
        before_it = (earlier.model, earlier.model_version, earlier.provider) if earlier else ("", "", "")
        model, model_version, provider = gateway.answered_by or before_it
        return RunFacts(
            request_id=job.run_id,
            conversation_id=job.conversation_id,
            mode=job.request.mode,
            created_at=job.created_at,
            graph_fingerprint=fingerprint(job.request.mode),
            model=model,
            model_version=model_version,
            provider=provider,
            usage=CardUsage(
                input_tokens=before.input_tokens + used.input_tokens,
                output_tokens=before.output_tokens + used.output_tokens,
                estimated=before.estimated or used.estimated,
                calls=before.calls + sum(not call.cached for call in gateway.calls),
                cost_usd_micros=before.cost_usd_micros + gateway.cost_micros,
            ),
            stations=(*(earlier.stations if earlier else ()), *leg.trace.stations()),
            reasons=(*(earlier.reasons if earlier else ()), *gateway.reasons),
            degraded=gateway.degraded or (earlier.degraded if earlier else ""),
            without_model=gateway.failed_over is not None or (earlier.without_model if earlier else False),
            cached=gateway.cached,
            continued_by=(*(earlier.continued_by if earlier else ()), *gateway.continued_by),
            latency_ms=round((earlier.latency_ms if earlier else 0.0) + leg.trace.elapsed_ms, 3),
        )

    async def _bury(self, record: RunRecord, error: PilothouseError, *, decided: str = "") -> bool:
        """Write down how a run ended that nobody drives any more; False where somebody does by now.

        What it asked for is void, and so is the approval `decided`.
        """
        run_id, shown = record.run_id, card_error(error)
        status: RunStatus = "cancelled" if isinstance(error, Cancelled) else "failed"
        if record.card is None:
            finished = card(_bare_facts(record), {}, status=status, error=error)
        else:
            finished = record.card.model_copy(update={"status": status, "error": shown, "pending_approval": None})
        finished = self._safely(finished, record.tenant_id)
        number = await self._store.runs.next_event_number(run_id)
        data = {"error": shown.model_dump(by_alias=True), "card": finished.model_dump(mode="json", by_alias=True)}
        stored = await self._store.runs.finish(
            run_id,
            record.tenant_id,
            finished,
            events=[RunEvent(number, "run.failed", data)],
            spans=(),
            message_appends=[("user", record.message)],
            held_by=record.process_id,
        )
        if stored:
            # Of a process that died after it had asked and before the run waited, people would be asked for days.
            await self._store.approvals.void(run_id, record.tenant_id, error.message, decided=decided)
        await self._forget(record.tenant_id, run_id, record.mode)
        return stored

    def _live_for(self, principal: Principal, run_id: str) -> LiveRun | None:
        """The run in flight, if this caller may know of it: what is not stored yet needs no look into the store."""
        live = self._live.get(run_id)
        if live is None or live.tenant_id != principal.tenant_id:
            return None
        return live if principal.may("runs") or live.user_id == principal.user_id else None

    async def _record(self, principal: Principal, run_id: str) -> RunRecord:
        sees_all = principal.may("runs")
        return await self._store.runs.get(run_id, principal.tenant_id, None if sees_all else principal.user_id)


def _for_people(finished: AnswerCard) -> list[tuple[str, str]]:
    """Why people are to look at a run that policy or a failure stopped, in words and by a code. What its user can mend
    or has chosen is none of theirs, nor is a server that was stopped."""
    if finished.status == "blocked":
        blocks = [verdict for verdict in finished.verdicts if verdict.action == "block"]
        return [("policy stopped the run", ", ".join(reason for verdict in blocks for reason in verdict.reasons))]
    error = finished.error
    if finished.status == "failed" and error is not None and error.kind in {"upstream", "internal"}:
        return [] if error.code == Interrupted.code else [("the run failed", error.code)]
    return []


def _changed(record: RunRecord) -> GraphChanged | None:
    """Why a run that waited may not go on here. What has the same fingerprint is the same; anything else is not known
    to be."""
    now = fingerprint(record.mode)
    if record.graph_fingerprint == now:
        return None
    return GraphChanged(
        f"the run began with version {record.graph_fingerprint or 'unknown'} of its graph and {now} is here: "
        "it did not go on, and what it had asked for was not done"
    )


def _owners(live: LiveRun, principal: Principal) -> Withheld | None:
    """What the run withholds from its model, for who asked it."""
    return live.withheld if (live.tenant_id, live.user_id) == (principal.tenant_id, principal.user_id) else None


def _payer(job: Job) -> Payer:
    principal, run_id = job.principal, job.run_id
    return Payer(principal.tenant_id, principal.user_id, principal.key_id, job.request.feature, run_id, run_id)


def _message(turn: MessageRecord) -> Message:
    role: Role = "assistant" if turn.role == "assistant" else "user"
    return Message(role, turn.content, trust=turn.trust or "untrusted")


def _conversation(record: RunRecord) -> str:
    return record.conversation_id or ""


def _bare_facts(record: RunRecord) -> RunFacts:
    return RunFacts(record.run_id, _conversation(record), record.mode, record.created_at, fingerprint(record.mode))


__all__ = ["LAST_EVENTS", "Job", "MakeContext", "Runner"]
