"""Runs: a row from the first moment, finished in one transaction, exported behind the answer.

The row is the truth about a run; the MLflow trace is made from it later. Until `exported_at` is set an ended run is in
the outbox, so a crash at any moment loses no trace.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.records import AnswerCard, Mode, RunEvent, RunStatus, SpanRecord
from app.services.seals import Seals
from app.services.store.conversations import owned
from app.services.store.database import Database
from app.services.store.page import build, check_limit, columns, page
from app.services.store.records import WAITING, Page, RunFilter, RunRecord
from app.services.store.runsearch import POSITION, runs_with
from app.services.store.tables import approvals, conversations, events, feedback, messages, runs, spans
from app.services.store.text import clean
from graphs.errors import Conflict, Missing
from graphs.types import Trust

TERMINAL: Final[frozenset[RunStatus]] = frozenset({"completed", "blocked", "failed", "cancelled"})
_COLUMNS = columns(runs, RunRecord)
_SPAN_COLUMNS = columns(spans, SpanRecord)
_SPAN = [column.name for column in _SPAN_COLUMNS]
_FINISH = (
    update(runs)
    .where(
        runs.c.run_id == bindparam("of_run"),
        runs.c.tenant_id == bindparam("of_tenant"),
        runs.c.ended_at.is_(None),
        runs.c.process_id == bindparam("held_by"),
    )
    .returning(runs.c.conversation_id)
)


class Runs:
    """The runs of all tenants. Methods without a tenant are for the runner and the exporter, never for a request."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._record = database.seals.reader(runs, RunRecord)
        insert, prepare = database.insert, database.prepare
        self._open_conversation, self._start = prepare(insert(conversations)), prepare(insert(runs))
        self._finish = prepare(_FINISH)
        self._add_events = prepare(insert(events).on_conflict_do_nothing())
        self._add_spans = prepare(insert(spans).on_conflict_do_nothing())
        self._add_messages = prepare(insert(messages).on_conflict_do_nothing(index_elements=["message_id"]))

    async def start(
        self,
        run_id: str,
        tenant_id: str,
        user_id: str,
        conversation_id: str | None,
        mode: Mode,
        message: str,
        feature: str,
        key_id: str,
        created_at: datetime,
        asked: Mapping[str, Any] | None = None,
        opens: str | None = None,
        process_id: str = "",
        groups: Sequence[str] = (),
    ) -> None:
        """Write the row, status running; with `opens`, the title of a new conversation, that one too. `process_id` is
        of the process that drives the run.

        Raises Missing for a conversation of someone else, Conflict for a used id.
        """
        row = {
            "run_id": run_id,
            "tenant_id": tenant_id,
            "user_id": user_id,
            "conversation_id": conversation_id,
            "mode": mode,
            "status": "running",
            "message": message,
            "asked": asked or {},
            "feature": feature,
            "key_id": key_id,
            "created_at": created_at,
            "process_id": process_id,
            "groups": groups,
        }
        seal = self._db.seals.seal
        opened = {name: row[name] for name in ("conversation_id", "tenant_id", "user_id", "created_at")}
        opening = None if opens is None else seal(conversations, opened | {"title": opens})
        sealed = seal(runs, row)

        def write(connection: Connection) -> None:
            if opening is not None:
                self._open_conversation.one(connection, opening)
            elif conversation_id is not None:
                mine = select(conversations.c.conversation_id).where(owned(conversation_id, tenant_id, user_id))
                if connection.execute(mine).first() is None:
                    raise Missing("no such conversation")
            self._start.one(connection, sealed)

        try:
            await self._db.commit(write)
        except IntegrityError as error:
            raise Conflict("a run with this id exists") from error

    async def finish(
        self,
        run_id: str,
        tenant_id: str,
        card: AnswerCard,
        events: Sequence[RunEvent] = (),
        spans: Sequence[SpanRecord] = (),
        message_appends: Sequence[tuple[str, str]] = (),
        held_by: str = "",
    ) -> bool:
        """Write all that a run, or its part up to an approval, left behind: one transaction, all or nothing.

        A terminal status ends the run and puts it into the outbox; the lease that `held_by` has on it is over. The same
        call again changes nothing: events and spans are known by their numbers and ids, messages by run, place and
        content. False, with nothing written, if the run had already ended, went with its deleted conversation or is
        another process's by now.
        """
        now, seals = self._db.clock(), self._db.seals
        outcome = {
            **seals.seal(runs, _outcome(card), run_id=run_id, tenant_id=tenant_id),
            "of_run": run_id,
            "of_tenant": tenant_id,
            "held_by": held_by,
            "process_id": "",
            "ended_at": now if card.status in TERMINAL else None,
        }
        event_rows = _event_rows(seals, run_id, tenant_id, events)
        span_rows = _span_rows(seals, run_id, tenant_id, spans)

        def write(connection: Connection) -> bool:
            run = self._finish.one(connection, outcome)
            if run is None:
                return False
            of_conversation = run[0]
            self._add_events.many(connection, event_rows)
            self._add_spans.many(connection, span_rows)
            if of_conversation is not None:
                shared = {"conversation_id": of_conversation, "tenant_id": tenant_id, "created_at": now}
                rows = [seals.seal(messages, row) for row in _message_rows(run_id, message_appends, shared, card.trust)]
                self._add_messages.many(connection, rows)
            return True

        return await self._db.commit(write)

    async def get(self, run_id: str, tenant_id: str, user_id: str | None) -> RunRecord:
        """Raises Missing. `user_id` None reaches every user of the tenant."""
        query = select(*_COLUMNS).where(runs.c.run_id == run_id, _of(tenant_id, user_id))
        async with self._db.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise Missing("no such run")
        return build(self._record, row)

    async def events(self, run_id: str, tenant_id: str, after: int = 0) -> list[RunEvent]:
        """The stored events with a number above `after`, in order. Raises Missing."""
        query = (
            select(events.c.number, events.c.type, events.c.data)
            .where(events.c.run_id == run_id, events.c.number > after)
            .order_by(events.c.number)
        )
        async with self._db.read() as connection:
            await self._known(connection, run_id, tenant_id)
            event = self._db.seals.reader(events, RunEvent, tenant_id=tenant_id, run_id=run_id)
            return [build(event, row) for row in await connection.execute(query)]

    async def spans(self, run_id: str, tenant_id: str) -> list[SpanRecord]:
        """The run's finished spans by start. Raises Missing."""
        query = select(*_SPAN_COLUMNS).where(spans.c.run_id == run_id).order_by(spans.c.started_at, spans.c.span_id)
        async with self._db.read() as connection:
            await self._known(connection, run_id, tenant_id)
            span = self._db.seals.reader(spans, SpanRecord, tenant_id=tenant_id)
            return [build(span, row) for row in await connection.execute(query)]

    async def next_event_number(self, run_id: str) -> int:
        """Where a resumed run goes on counting; 1 for one without stored events."""
        query = select(func.coalesce(func.max(events.c.number), 0)).where(events.c.run_id == run_id)
        async with self._db.read() as connection:
            return int((await connection.execute(query)).scalar_one()) + 1

    async def set_status(self, run_id: str, status: RunStatus, from_status: RunStatus) -> bool:
        """Move the run on, only if it is in `from_status` and nobody drives it; of many callers one gets True."""
        ended = {"ended_at": self._db.clock()} if status in TERMINAL else {}
        free = (runs.c.status == from_status, runs.c.process_id == "")
        change = update(runs).where(runs.c.run_id == run_id, *free)
        async with self._db.write() as connection:
            return (await connection.execute(change.values(status=status, **ended))).rowcount == 1

    async def resumable(self) -> list[str]:
        """Waiting runs that nobody drives, oldest first, with all their approvals decided (or expired; see
        Approvals.expire)."""
        asked = select(approvals.c.approval_id).where(approvals.c.run_id == runs.c.run_id)
        query = select(runs.c.run_id).where(
            runs.c.status == "waiting",
            runs.c.process_id == "",
            runs.c.ended_at.is_(None),
            asked.exists(),
            ~asked.where(approvals.c.state.in_(WAITING)).exists(),
        )
        return await self._ids(query.order_by(runs.c.created_at))

    async def is_open(self, run_id: str) -> bool:
        """Whether the run is in flight or waits, at whatever process."""
        return bool(await self._ids(select(runs.c.run_id).where(runs.c.run_id == run_id, runs.c.ended_at.is_(None))))

    async def unended(self) -> frozenset[str]:
        """The runs that are in flight or wait."""
        return frozenset(await self._ids(select(runs.c.run_id).where(runs.c.ended_at.is_(None))))

    async def export_batch(self, limit: int) -> list[RunRecord]:
        """Ended runs whose trace has not been exported, the longest waiting first."""
        query = select(*_COLUMNS).where(_in_outbox()).order_by(runs.c.ended_at, runs.c.run_id).limit(limit)
        async with self._db.read() as connection:
            return [build(self._record, row) for row in await connection.execute(query)]

    async def mark_exported(
        self, run_ids: Sequence[str], trace_ids: Sequence[str], heard: Mapping[str, datetime]
    ) -> int:
        """Take these runs out of the outbox, each with its trace's id; how many were still in it.

        `heard` has the time of the newest opinion that was exported with a run. One that has another by now stays in.
        """
        now, marked = self._db.clock(), 0
        async with self._db.write() as connection:
            for run_id, trace_id in zip(run_ids, trace_ids, strict=True):
                newest = select(func.max(feedback.c.created_at)).where(feedback.c.run_id == run_id).scalar_subquery()
                same = newest == heard[run_id] if run_id in heard else newest.is_(None)
                change = update(runs).where(runs.c.run_id == run_id, _in_outbox(), same)
                marked += (await connection.execute(change.values(exported_at=now, trace_id=trace_id))).rowcount
        return marked

    async def backlog(self) -> int:
        """How many ended runs wait for their export."""
        async with self._db.read() as connection:
            query = select(func.count()).select_from(runs).where(_in_outbox())
            return int((await connection.execute(query)).scalar_one())

    async def _ids(self, query: Any) -> list[str]:
        async with self._db.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def _known(self, connection: AsyncConnection, run_id: str, tenant_id: str) -> None:
        query = select(runs.c.run_id).where(runs.c.run_id == run_id, _of(tenant_id, None))
        if (await connection.execute(query)).first() is None:
            raise Missing("no such run")

    # Last: from here on `list` is this method.
    async def load(self, run_id: str) -> RunRecord:
        """The run of whatever tenant. Raises Missing."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(runs.c.run_id == run_id))).first()
        if row is None:
            raise Missing("no such run")
        return build(self._record, row)

    async def list(
        self,
        tenant_id: str,
        user_id: str | None,
        filters: RunFilter = RunFilter(),  # noqa: B008 - frozen
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[RunRecord]:
        """Newest first. With a text, a page may hold fewer than `limit` and yet have a next one. Raises Invalid for
        limit or cursor."""
        where = [_of(tenant_id, user_id), *_matching(filters)]
        async with self._db.read() as connection:
            if not filters.text:
                return await page(connection, select(*_COLUMNS).where(*where), self._record, POSITION, limit, cursor)
            check_limit(limit)
            ids, onward = await runs_with(connection, self._db.seals, where, filters.text, limit, cursor)
            query = select(*_COLUMNS).where(runs.c.run_id.in_(ids)).order_by(*(column.desc() for column in POSITION))
            return Page([build(self._record, row) for row in await connection.execute(query)], onward)


def _of(tenant_id: str, user_id: str | None) -> ColumnElement[bool]:
    mine = runs.c.tenant_id == tenant_id
    return mine if user_id is None else mine & (runs.c.user_id == user_id)


def _in_outbox() -> ColumnElement[bool]:
    return runs.c.exported_at.is_(None) & runs.c.ended_at.is_not(None)


def _matching(filters: RunFilter) -> list[ColumnElement[bool]]:
    same = {name: getattr(filters, name) for name in ("mode", "status", "model", "conversation_id")}
    found = [runs.c[name] == value for name, value in same.items() if value is not None]
    if filters.since is not None:
        found.append(runs.c.created_at >= filters.since)
    if filters.until is not None:
        found.append(runs.c.created_at < filters.until)
    return found


def _event_rows(seals: Seals, run_id: str, tenant_id: str, told: Sequence[RunEvent]) -> list[Mapping[str, Any]]:
    rows = [{"run_id": run_id, "number": item.number, "type": item.type, "data": item.data} for item in told]
    return [seals.seal(events, row, tenant_id=tenant_id) for row in rows]


def _span_rows(seals: Seals, run_id: str, tenant_id: str, ended: Sequence[SpanRecord]) -> list[Mapping[str, Any]]:
    rows = [{name: getattr(span, name) for name in _SPAN} | {"run_id": run_id} for span in ended]
    return [seals.seal(spans, row, tenant_id=tenant_id) for row in rows]


def _message_rows(
    run_id: str, said: Sequence[tuple[str, str]], shared: Mapping[str, Any], trust: Trust | None
) -> list[dict[str, Any]]:
    return [
        {
            "message_id": _message_id(run_id, place, role, content),
            "run_id": run_id,
            "role": role,
            "content": content,
            "trust": "tenant" if role == "user" else trust,
            **shared,
        }
        for place, (role, content) in enumerate(said)
    ]


def _message_id(run_id: str, place: int, role: str, content: str) -> str:
    return uuid5(NAMESPACE_OID, clean(f"{run_id}/{place}/{role}/{content}")).hex


def _outcome(card: AnswerCard) -> dict[str, Any]:
    """The card's values as columns, so that they can be filtered and summed; the card itself goes in whole."""
    stations: dict[str, float] = {}
    for station in card.stations:
        stations[station.name] = stations.get(station.name, 0.0) + station.latency_ms
    return {
        "status": card.status,
        "answer": card.answer,
        "prompt_version": card.prompt_version,
        "model": card.model,
        "model_version": card.model_version,
        "provider": card.provider,
        "graph_fingerprint": card.graph_fingerprint,
        "index_version": card.index_version,
        "embedder": card.embedder,
        "retrieved_chunk_ids": card.retrieved_chunk_ids,
        "tool_calls": [tool.model_dump(by_alias=True) for tool in card.tools],
        "stations": stations,
        "latency_ms": card.latency_ms,
        "input_tokens": card.usage.input_tokens,
        "output_tokens": card.usage.output_tokens,
        "usage_estimated": card.usage.estimated,
        "cost_usd_micros": card.usage.cost_usd_micros,
        "validation": card.validation,
        "error_kind": card.error and card.error.kind,
        "error_code": card.error and card.error.code,
        "error_message": card.error and card.error.message,
        "card": card,
    }
