"""What the store promises, on SQLite and on PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.records import (
    Actor,
    AnswerCard,
    CardError,
    CardStation,
    CardTool,
    CardUsage,
    NewDocument,
    RunEvent,
    RunStatus,
    SpanRecord,
)
from app.sealing import new_key
from app.services.keyring import Keyring
from app.services.store.records import ApprovalRecord, ConversationRecord, Page, RunFilter
from app.services.store.store import Store
from app.services.vault import Vault
from graphs.errors import Conflict, Invalid, Missing
from graphs.types import Decision

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "a\x00b\ud800c \U0001f6a2 'x' OR 1=1; -- \u202e"
CLEANED = HOSTILE.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, **units: float) -> None:
        self.now += timedelta(**units)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(store_url: str, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(store_url, clock, Vault(Keyring([new_key()])))
    yield opened
    await opened.close()


async def begin(store: Store, run_id: str, tenant: str = "a", user: str = "u1", message: str = "hello") -> str:
    """A running run in a new conversation, whose id it gives."""
    conversation = await store.conversations.create(tenant, user, "title")
    await store.runs.start(
        run_id, tenant, user, conversation.conversation_id, "chat", message, "api", "k", store_now(store)
    )
    return conversation.conversation_id


def store_now(store: Store) -> datetime:
    return store._database.clock()


def card(run_id: str, conversation_id: str, status: RunStatus = "completed", **values: Any) -> AnswerCard:
    known = {"request_id": run_id, "conversation_id": conversation_id, "mode": "chat", "created_at": START}
    return AnswerCard.model_validate(known | {"status": status} | values)


def span(run_id: str, span_id: str, **attributes: Any) -> SpanRecord:
    return SpanRecord(span_id, run_id, None, "complete", "model", START, START + timedelta(seconds=1), "ok", attributes)


async def ask(store: Store, run_id: str, interrupt_id: str = "i") -> ApprovalRecord:
    expires_at = store_now(store) + timedelta(hours=1)
    return await store.approvals.create(run_id, interrupt_id, "a", "u1", "create_ticket", {"n": 1}, "write", expires_at)


async def walk(list_: Callable[[str | None], Awaitable[Page[Any]]]) -> list[Any]:
    items: list[Any] = []
    cursor = None
    while True:
        got = await list_(cursor)
        items += got.items
        if (cursor := got.next_cursor) is None:
            return items


class TestKeys:
    async def test_a_key_opens_with_its_secret_and_with_nothing_else(self, store: Store) -> None:
        record, secret = await store.keys.create("a", "u1", ["chat", "runs"], "laptop")
        assert secret.startswith(f"ph_{record.key_id}_")
        assert await store.keys.verify(secret) == record
        assert record.scopes == ("chat", "runs")
        for wrong in (secret[:-1], secret[:-1] + ("A" if secret[-1] != "A" else "B"), record.key_id, "", HOSTILE):
            assert await store.keys.verify(wrong) is None

    async def test_a_secret_is_nowhere_in_the_database(self, store: Store) -> None:
        _, secret = await store.keys.create("a", "u1", ["chat"], "laptop")
        async with store._database.read() as connection:
            rows = (await connection.exec_driver_sql("SELECT * FROM keys")).all()
        assert rows
        assert secret.split("_", 2)[2] not in repr(rows)  # which may have underscores itself

    async def test_a_revoked_key_opens_nothing(self, store: Store) -> None:
        record, secret = await store.keys.create("a", "u1", ["chat"], "laptop")
        await store.keys.revoke(record.key_id, "a")
        await store.keys.revoke(record.key_id, "a")
        assert await store.keys.verify(secret) is None
        assert not await store.keys.active(record.key_id)
        assert [key.revoked_at for key in await store.keys.list("a")] == [START]

    async def test_a_key_ends_at_its_time(self, store: Store, clock: Clock) -> None:
        record, secret = await store.keys.create("a", "u1", ["chat"], "x", expires_at=START + timedelta(hours=1))
        assert await store.keys.active(record.key_id)
        clock.move(hours=1)
        assert await store.keys.verify(secret) is None
        assert not await store.keys.active(record.key_id)

    @pytest.mark.parametrize(
        ("tenant", "user", "scopes", "field"),
        [
            ("", "u", ["chat"], "tenantId"),
            ("_shared", "u", ["chat"], "tenantId"),
            ("a\x00", "u", ["chat"], "tenantId"),
            ("a", "u" * 129, ["chat"], "userId"),
            ("a", "u", ["root"], "scopes"),
            ("a", "u", [], "scopes"),
        ],
    )
    async def test_a_key_without_sense_is_refused_by_field(
        self, store: Store, tenant: str, user: str, scopes: list[str], field: str
    ) -> None:
        with pytest.raises(Invalid) as refused:
            await store.keys.create(tenant, user, scopes, "x")
        assert refused.value.field == field

    async def test_importing_the_owner_key_again_changes_nothing(self, store: Store, clock: Clock) -> None:
        first = await store.keys.import_owner("o" * 32)
        clock.move(days=1)
        assert await store.keys.import_owner("o" * 32) == first
        assert await store.keys.verify("o" * 32) == first
        assert len(await store.keys.list(None)) == 1

    async def test_a_new_owner_key_retires_the_old_one_and_no_other(self, store: Store) -> None:
        _, users = await store.keys.create("a", "u1", ["owner"], "x")
        await store.keys.import_owner("o" * 32)
        await store.keys.import_owner("p" * 40)
        assert await store.keys.verify("o" * 32) is None
        assert await store.keys.verify("p" * 40) is not None
        assert await store.keys.verify(users) is not None
        await store.keys.import_owner("o" * 32)
        assert await store.keys.verify("o" * 32) is not None

    async def test_a_short_owner_key_is_refused(self, store: Store) -> None:
        with pytest.raises(Invalid):
            await store.keys.import_owner("o" * 31)


class TestConversations:
    async def test_messages_come_oldest_first_and_the_last_ones_at_a_limit(self, store: Store) -> None:
        created = await store.conversations.create("a", "u1", "title")
        for n in range(5):
            await store.conversations.append(created.conversation_id, "a", "user", f"m{n}", None)
        kept = await store.conversations.messages(created.conversation_id, "a", "u1", limit=3)
        assert [message.content for message in kept] == ["m2", "m3", "m4"]

    async def test_deleting_one_removes_all_its_contents_but_no_ticket(self, store: Store) -> None:
        conversation_id = await begin(store, "r1")
        events = [RunEvent(1, "run.started", {})]
        turns = [("user", "hi"), ("assistant", "ho")]
        done = card("r1", conversation_id)
        await ask(store, "r1")
        await store.escalations.create("r1", "a", "unsure")
        await store.feedback.put("r1", "a", "u1", "up", "")
        await store.runs.finish("r1", "a", done, events, [span("r1", "s")], turns)
        await store.tickets.create("a", "u1", "r1", "call", "t", "b")
        await begin(store, "other")
        await store.conversations.delete(conversation_id, "a", "u1")
        async with store._database.read() as connection:
            for table in ("messages", "events", "spans", "approvals", "feedback", "escalations"):
                assert (await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar_one() == 0, table
            assert (await connection.exec_driver_sql("SELECT run_id FROM runs")).scalars().all() == ["other"]
        assert len((await store.tickets.list("a")).items) == 1

    async def test_a_run_that_ends_after_its_conversation_was_deleted_leaves_nothing(self, store: Store) -> None:
        conversation_id = await begin(store, "r1")
        await store.conversations.delete(conversation_id, "a", "u1")
        assert not await store.runs.finish("r1", "a", card("r1", conversation_id), [RunEvent(1, "x", {})])
        assert await store.runs.next_event_number("r1") == 1

    async def test_pages_are_complete_and_without_repeats_while_new_ones_arrive(
        self, store: Store, clock: Clock
    ) -> None:
        made = []
        for n in range(25):
            made.append((await store.conversations.create("a", "u1", str(n))).conversation_id)
            # Several share a time: the id decides among them.
            clock.move(seconds=n % 3)

        async def page(cursor: str | None) -> Page[ConversationRecord]:
            got = await store.conversations.list("a", "u1", 4, cursor)
            await store.conversations.create("a", "u1", "newer")
            return got

        seen = [conversation.conversation_id for conversation in await walk(page)]
        assert len(set(seen)) == len(seen)
        assert set(made) <= set(seen)

    async def test_a_page_that_ends_the_list_has_no_cursor(self, store: Store) -> None:
        for _ in range(4):
            await store.conversations.create("a", "u1", "t")
        assert (await store.conversations.list("a", "u1", 4)).next_cursor is None
        assert (await store.conversations.list("a", "u1", 3)).next_cursor is not None

    @pytest.mark.parametrize(
        "cursor",
        ["", "x", "=", "é", "\ud800", "A" * 10_000, "W10", "WzEsMl0", "WyJ4IiwieSJd", "bnVsbA",
         "WyIyMDI2LTAxLTAxIiwieCJd", "W1tbW1tb"],
    )  # fmt: skip
    async def test_a_forged_cursor_is_refused_by_name(self, store: Store, cursor: str) -> None:
        with pytest.raises(Invalid) as refused:
            await store.conversations.list("a", "u1", 10, cursor)
        assert refused.value.field == "cursor"

    @pytest.mark.parametrize("limit", [0, -1, 201, 10**9])
    async def test_a_limit_out_of_range_is_refused_by_name(self, store: Store, limit: int) -> None:
        with pytest.raises(Invalid) as refused:
            await store.runs.list("a", None, limit=limit)
        assert refused.value.field == "limit"


class TestRuns:
    async def test_a_finished_run_has_its_card_in_columns(self, store: Store, clock: Clock) -> None:
        conversation_id = await begin(store, "r1")
        clock.move(seconds=3)
        done = card(
            "r1",
            conversation_id,
            "failed",
            answer="no",
            model="smol",
            model_version="1",
            provider="llamacpp",
            prompt_version="chat@1",
            graph_fingerprint="f",
            index_version="7",
            embedder="minilm",
            retrieved_chunk_ids=("c1", "c2"),
            tools=(CardTool(call_id="t", name="calculator", arguments={"e": "1+1"}, status="ok"),),
            stations=tuple(
                CardStation(name=name, started_ms=0, latency_ms=ms) for name, ms in (("a", 1.5), ("b", 2), ("a", 3))
            ),
            latency_ms=12.5,
            usage=CardUsage(input_tokens=2**40, output_tokens=7, estimated=True, calls=2, cost_usd_micros=2**40),
            validation="unsupported",
            error=CardError(kind="upstream", code="upstream_timeout", message="late"),
        )
        assert await store.runs.finish("r1", "a", done)
        run = await store.runs.get("r1", "a", "u1")
        assert run.card == done
        assert (run.status, run.answer, run.model, run.model_version) == ("failed", "no", "smol", "1")
        assert (run.provider, run.prompt_version, run.graph_fingerprint) == ("llamacpp", "chat@1", "f")
        assert (run.index_version, run.embedder, run.retrieved_chunk_ids) == ("7", "minilm", ("c1", "c2"))
        assert (run.tool_calls[0]["callId"], run.stations, run.latency_ms) == ("t", {"a": 4.5, "b": 2.0}, 12.5)
        assert (run.input_tokens, run.output_tokens, run.usage_estimated) == (2**40, 7, True)
        assert (run.cost_usd_micros, run.validation) == (2**40, "unsupported")
        assert (run.error_kind, run.error_code, run.error_message) == ("upstream", "upstream_timeout", "late")
        assert (run.created_at, run.ended_at, run.exported_at) == (START, START + timedelta(seconds=3), None)

    async def test_finishing_twice_writes_once(self, store: Store) -> None:
        conversation_id = await begin(store, "r1")
        events = [RunEvent(1, "run.started", {}), RunEvent(2, "run.completed", {"ok": True})]
        # The same words twice in one conversation are two messages.
        turns = [("user", "again"), ("assistant", "again"), ("user", "again")]
        done = card("r1", conversation_id)
        assert await store.runs.finish("r1", "a", done, events, [span("r1", "s")], turns)
        assert not await store.runs.finish("r1", "a", done, events, [span("r1", "s")], turns)
        assert not await store.runs.finish("r1", "a", done.model_copy(update={"answer": "other"}), events)
        assert await store.runs.events("r1", "a") == events
        assert await store.runs.spans("r1", "a") == [span("r1", "s")]
        assert len(await store.conversations.messages(conversation_id, "a", "u1")) == 3
        assert (await store.runs.get("r1", "a", None)).answer == ""

    async def test_a_run_that_waits_goes_on_counting_and_keeps_what_it_had(self, store: Store) -> None:
        conversation_id = await begin(store, "r1")
        asked = card("r1", conversation_id, "waiting")
        for _ in range(2):
            assert await store.runs.finish(
                "r1", "a", asked, [RunEvent(1, "approval.required", {})], (), [("user", "hi")]
            )
        assert await store.runs.next_event_number("r1") == 2
        assert await store.runs.backlog() == 0
        assert await store.runs.set_status("r1", "running", "waiting")
        done = card("r1", conversation_id)
        assert await store.runs.finish("r1", "a", done, [RunEvent(2, "run.completed", {})], (), [("assistant", "ho")])
        assert [event.number for event in await store.runs.events("r1", "a")] == [1, 2]
        assert [event.number for event in await store.runs.events("r1", "a", after=1)] == [2]
        turns = await store.conversations.messages(conversation_id, "a", "u1")
        assert [(turn.role, turn.content) for turn in turns] == [("user", "hi"), ("assistant", "ho")]

    async def test_a_used_run_id_is_a_conflict_for_everybody(self, store: Store) -> None:
        await begin(store, "r1", tenant="a")
        with pytest.raises(Conflict):
            await begin(store, "r1", tenant="b")
        assert (await store.runs.get("r1", "a", None)).tenant_id == "a"

    async def test_runs_are_found_by_what_they_are(self, store: Store, clock: Clock) -> None:
        for n in range(4):
            conversation_id = await begin(store, f"r{n}", message=f"Wie 100% sicher_{n}?")
            await store.runs.finish(f"r{n}", "a", card(f"r{n}", conversation_id, model=f"m{n % 2}", answer="Ja"))
            clock.move(minutes=1)
        await begin(store, "open")

        async def found(**filters: Any) -> list[str]:
            return [run.run_id for run in (await store.runs.list("a", None, RunFilter(**filters))).items]

        assert await found() == ["open", "r3", "r2", "r1", "r0"]
        assert await found(model="m1") == ["r3", "r1"]
        assert await found(status="running") == ["open"]
        assert await found(text="SICHER_2") == ["r2"]
        assert await found(text="100%x") == []
        assert await found(text="ja", since=START + timedelta(minutes=1), until=START + timedelta(minutes=3)) == [
            "r2",
            "r1",
        ]
        assert await found(mode="rag") == []

    async def test_of_many_status_changes_one_wins(self, store: Store) -> None:
        await begin(store, "r1")
        moves = [store.runs.set_status("r1", "cancelled", "running") for _ in range(10)]
        assert sorted(await asyncio.gather(*moves)) == [False] * 9 + [True]
        assert (await store.runs.get("r1", "a", None)).ended_at == START

    async def test_what_a_dead_process_left_is_found(self, store: Store) -> None:
        conversation_id = await begin(store, "done")
        await store.runs.finish("done", "a", card("done", conversation_id))
        await begin(store, "left")
        assert [lease.run_id for lease in await store.leases.held()] == ["left"]

    async def test_a_waiting_run_is_resumable_once_all_it_asked_is_decided(self, store: Store, clock: Clock) -> None:
        conversation_id = await begin(store, "r1")
        first, second = await ask(store, "r1", "i1"), await ask(store, "r1", "i2")
        assert await store.runs.resumable() == []
        await store.runs.finish("r1", "a", card("r1", conversation_id, "waiting"))
        await store.approvals.decide(first.approval_id, "a", Actor("a", "u2"), "approve", None, "", clock.now)
        assert await store.runs.resumable() == []
        clock.move(hours=2)
        assert await store.approvals.expire(clock.now) == ["r1"]
        assert await store.runs.resumable() == ["r1"]
        assert (await store.approvals.get(second.approval_id, "a")).decision == "deny"
        await store.runs.set_status("r1", "running", "waiting")
        assert await store.runs.resumable() == []

    async def test_the_outbox_gives_each_ended_run_until_it_is_marked(self, store: Store, clock: Clock) -> None:
        for n in range(5):
            conversation_id = await begin(store, f"r{n}")
            clock.move(seconds=1)
            await store.runs.finish(
                f"r{n}", "a", card(f"r{n}", conversation_id, "cancelled" if n == 3 else "completed")
            )
        await begin(store, "open")
        assert await store.runs.backlog() == 5
        assert [run.run_id for run in await store.runs.export_batch(2)] == ["r0", "r1"]
        assert await store.runs.mark_exported(["r0", "r1"], ["t0", "t1"], {}) == 2
        assert await store.runs.mark_exported(["r1", "open"], ["again", "never"], {}) == 0
        assert [run.run_id for run in await store.runs.export_batch(10)] == ["r2", "r3", "r4"]
        assert await store.runs.backlog() == 3
        exported = await store.runs.get("r1", "a", None)
        assert (exported.trace_id, exported.exported_at) == ("t1", clock.now)

    async def test_an_opinion_brings_its_run_back_until_it_was_exported(self, store: Store, clock: Clock) -> None:
        await store.runs.finish("r1", "a", card("r1", await begin(store, "r1")))
        assert await store.runs.mark_exported(["r1"], ["t1"], {}) == 1
        first = await store.feedback.put("r1", "a", "u1", "up", "")
        assert [run.run_id for run in await store.runs.export_batch(10)] == ["r1"]
        clock.move(seconds=1)
        second = await store.feedback.put("r1", "a", "u2", "down", "no")  # while the first is being exported
        assert await store.runs.mark_exported(["r1"], ["t1"], {"r1": first.created_at}) == 0
        assert await store.runs.mark_exported(["r1"], ["t1"], {}) == 0
        assert await store.runs.mark_exported(["r1"], ["t1"], {"r1": second.created_at}) == 1
        assert await store.runs.backlog() == 0

    async def test_many_runs_at_once_all_end(self, store: Store) -> None:
        async def run(n: int) -> None:
            conversation_id = await begin(store, f"r{n}")
            events = [RunEvent(i, "message.delta", {"text": "x"}) for i in range(1, 20)]
            assert await store.runs.finish(f"r{n}", "a", card(f"r{n}", conversation_id), events, (), [("user", "x")])

        await asyncio.gather(*(run(n) for n in range(50)))
        assert await store.runs.backlog() == 50


class TestApprovals:
    async def test_of_twenty_decisions_at_once_one_wins(self, store: Store) -> None:
        await begin(store, "r1")
        asked = await ask(store, "r1")

        async def decide(n: int) -> str:
            choice: Decision = "approve" if n % 2 else "deny"
            await store.approvals.decide(asked.approval_id, "a", Actor("a", f"p{n}"), choice, {"n": n}, "", START)
            return f"p{n}"

        outcomes = await asyncio.gather(*(decide(n) for n in range(20)), return_exceptions=True)
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome != winner)
        decided = await store.approvals.get(asked.approval_id, "a")
        assert decided.decided_by == winner
        assert decided.decided_arguments == {"n": int(winner[1:])}

    async def test_asking_again_for_the_same_interrupt_gives_the_first(self, store: Store) -> None:
        await begin(store, "r1")
        asked = await asyncio.gather(*(ask(store, "r1") for _ in range(5)))
        assert len({approval.approval_id for approval in asked}) == 1
        assert await store.approvals.of_run("r1", "a") == [asked[0]]

    async def test_past_its_time_it_can_not_be_decided(self, store: Store, clock: Clock) -> None:
        await begin(store, "r1")
        asked = await ask(store, "r1")
        clock.move(hours=1)
        assert (await store.approvals.list("a")).items == []
        assert (await store.approvals.list("a", "expired")).items == [asked]
        with pytest.raises(Conflict, match="expired"):
            await store.approvals.decide(asked.approval_id, "a", Actor("a", "p"), "approve", None, "", clock.now)

    async def test_a_decision_keeps_who_when_and_why(self, store: Store, clock: Clock) -> None:
        await begin(store, "r1")
        asked = await ask(store, "r1")
        clock.move(minutes=5)
        boss = Actor("a", "boss")
        decided = await store.approvals.decide(asked.approval_id, "a", boss, "deny", None, "no", clock.now)
        assert decided == replace(asked, state="denied", decided_by="boss", decided_at=clock.now, comment="no")
        assert (await store.approvals.list("a")).items == []
        assert (await store.approvals.list("a", "denied")).items == [decided]


class TestTheRest:
    async def test_one_ticket_for_each_idempotency_key_and_tenant(self, store: Store) -> None:
        make = [store.tickets.create("a", "u1", "r1", "call", f"t{n}", "b") for n in range(5)]
        assert len({ticket.ticket_id for ticket in await asyncio.gather(*make)}) == 1
        other = await store.tickets.create("b", "u1", "r1", "call", "theirs", "b")
        assert (await store.tickets.list("b")).items == [other]

    async def test_later_feedback_replaces_earlier(self, store: Store) -> None:
        await begin(store, "r1")
        await store.feedback.put("r1", "a", "u1", "up", "nice")
        await store.feedback.put("r1", "a", "u2", "up", "")
        latest = await store.feedback.put("r1", "a", "u1", "down", "not so")
        assert [(kept.user_id, kept.rating) for kept in await store.feedback.for_run("r1", "a")] == [
            ("u1", "down"),
            ("u2", "up"),
        ]
        assert latest.comment == "not so"

    async def test_escalations_are_listed_newest_first(self, store: Store, clock: Clock) -> None:
        await begin(store, "r1")
        first = await store.escalations.create("r1", "a", "unsure", "detail")
        clock.move(seconds=1)
        second = await store.escalations.create("r1", "a", "angry")
        assert (await store.escalations.list("a")).items == [second, first]

    async def test_a_document_replaced_keeps_its_birth_and_gives_the_new_text(self, store: Store, clock: Clock) -> None:
        async def put(text: str, chunks: int, collection: str = "c") -> None:
            await store.documents.put(
                "a",
                collection,
                [NewDocument("d/1 ü", "T", "text/plain", len(text), "0" * 64, chunks, {"lang": "en"}, text)],
            )

        await put("old", 1)
        clock.move(days=1)
        await put("new text", 3)
        await put("elsewhere", 2, collection="other")
        kept = await store.documents.get("a", "c", "d/1 ü")
        assert (kept.created_at, kept.updated_at, kept.chunks) == (START, clock.now, 3)
        assert kept.metadata == {"lang": "en"}
        assert await store.documents.text("a", "c", "d/1 ü") == "new text"
        assert [found.collection for found in await store.documents.find("a", "d/1 ü")] == ["c", "other"]
        assert [(c.name, c.documents, c.chunks) for c in await store.documents.collections("a")] == [
            ("c", 1, 3),
            ("other", 1, 2),
        ]
        await store.documents.delete("a", "c", "d/1 ü")
        with pytest.raises(Missing):
            await store.documents.get("a", "c", "d/1 ü")
        assert [kept.collection for kept in (await store.documents.list("a")).items] == ["other"]

    async def test_documents_are_found_by_a_part_of_title_or_id_and_collections_say_what_they_hold(
        self, store: Store, clock: Clock
    ) -> None:
        for document_id, title, size in (("plan.md", "Voyage Plan", 10), ("100%.txt", "", 20), ("x_1", "Log", 30)):
            clock.move(seconds=1)
            await store.documents.put(
                "a", "c", [NewDocument(document_id, title, "text/plain", size, "", 1, {}, "text")]
            )

        async def found(text: str) -> list[str]:
            return [kept.document_id for kept in (await store.documents.list("a", "c", text=text)).items]

        assert await found("voyage") == await found("PLAN.") == ["plan.md"]
        assert (await found("%"), await found("_"), await found("a\0b")) == (["100%.txt"], ["x_1"], [])
        (kept,) = await store.documents.collections("a")
        assert (kept.size_bytes, kept.updated_at) == (60, clock.now)

    async def test_the_longest_document_id_fits_and_a_longer_one_is_refused(self, store: Store) -> None:
        longest = "\U0001f6a2" * 512
        await store.documents.put("a", "\U0001f6a2" * 128, [NewDocument(longest, "", "text/plain", 0, "", 0, {}, "")])
        assert len(await store.documents.find("a", longest)) == 1
        with pytest.raises(Invalid):
            await store.documents.put("a", "c", [NewDocument(longest + "x", "", "text/plain", 0, "", 0, {}, "")])

    async def test_no_text_breaks_a_write_or_a_look_up(self, store: Store) -> None:
        conversation = await store.conversations.create("a", HOSTILE, HOSTILE)
        assert (conversation.user_id, conversation.title) == (CLEANED, CLEANED)
        conversation_id = conversation.conversation_id
        await store.runs.start("r1", "a", HOSTILE, conversation_id, "chat", HOSTILE, HOSTILE, HOSTILE, START)
        done = card(
            "r1",
            conversation_id,
            answer=HOSTILE,
            tools=(CardTool(call_id="t", name="x", arguments={HOSTILE: [HOSTILE, float("nan")]}, status="ok"),),
        )
        event = RunEvent(1, "message.delta", {"text": HOSTILE})
        assert await store.runs.finish("r1", "a", done, [event], [span("r1", "s", said=HOSTILE)], [("user", HOSTILE)])
        run = await store.runs.get("r1", "a", HOSTILE)
        assert run.card is not None
        assert run.card.tools[0].arguments == {CLEANED: [CLEANED, None]}
        assert (run.message, run.answer) == (CLEANED, CLEANED)
        assert (await store.runs.events("r1", "a"))[0].data == {"text": CLEANED}
        assert (await store.runs.spans("r1", "a"))[0].attributes == {"said": CLEANED}
        assert (await store.conversations.messages(conversation_id, "a", HOSTILE))[0].content == CLEANED
        assert len((await store.runs.list("a", None, RunFilter(text=HOSTILE))).items) == 1
        await store.documents.put(
            "a", HOSTILE, [NewDocument(HOSTILE, HOSTILE, "t", 1, "", 1, {HOSTILE: HOSTILE}, HOSTILE)]
        )
        assert await store.documents.text("a", HOSTILE, HOSTILE) == CLEANED
        assert (await store.feedback.put("r1", "a", HOSTILE, "up", HOSTILE)).comment == CLEANED
        assert (await store.tickets.create("a", "u", "r1", HOSTILE, HOSTILE, HOSTILE)).body == CLEANED
        for read in (store.runs.get(HOSTILE, "a", None), store.conversations.get(HOSTILE, "a", None)):
            with pytest.raises(Missing):
                await read

    async def test_a_store_that_answers_pings(self, store: Store) -> None:
        await store.ping()


@pytest.mark.parametrize("whose", ["another tenant", "a malformed id"])
async def test_what_is_not_yours_does_not_exist(store: Store, whose: str) -> None:
    """One call for each method that takes an id, by tenant b, on what tenant a has."""
    conversation_id = await begin(store, "r1")
    approval_id = (await ask(store, "r1")).approval_id
    key_id = (await store.keys.create("a", "u1", ["chat"], "x"))[0].key_id
    await store.documents.put("a", "c", [NewDocument("d", "T", "text/plain", 1, "", 1, {}, "text")])
    tenant, run_id, document_id = "b", "r1", "d"
    if whose == "a malformed id":
        tenant, conversation_id, run_id, document_id = "a", "../x", "\ud800\x00", "%"
        approval_id = key_id = "0" * 10_000
    refused: dict[str, Awaitable[Any]] = {
        "keys.revoke": store.keys.revoke(key_id, tenant),
        "conversations.get": store.conversations.get(conversation_id, tenant, None),
        "conversations.delete": store.conversations.delete(conversation_id, tenant, None),
        "conversations.append": store.conversations.append(conversation_id, tenant, "user", "x", None),
        "conversations.messages": store.conversations.messages(conversation_id, tenant, None),
        "runs.start": store.runs.start("r2", tenant, "u1", conversation_id, "chat", "x", "api", "", START),
        "runs.get": store.runs.get(run_id, tenant, None),
        "runs.events": store.runs.events(run_id, tenant),
        "runs.spans": store.runs.spans(run_id, tenant),
        "approvals.create": store.approvals.create(run_id, "z", tenant, "u1", "t", {}, "write", START),
        "approvals.get": store.approvals.get(approval_id, tenant),
        "approvals.decide": store.approvals.decide(approval_id, tenant, Actor(tenant, "p"), "approve", None, "", START),
        "feedback.put": store.feedback.put(run_id, tenant, "u1", "up", ""),
        "escalations.create": store.escalations.create(run_id, tenant, "x"),
        "documents.get": store.documents.get(tenant, "c", document_id),
        "documents.text": store.documents.text(tenant, "c", document_id),
        "documents.delete": store.documents.delete(tenant, "c", document_id),
    }
    outcomes = await asyncio.gather(*refused.values(), return_exceptions=True)
    assert dict(zip(refused, map(type, outcomes), strict=True)) == dict.fromkeys(refused, Missing)
    if tenant == "b":
        pages: list[Page[Any]] = [
            await store.conversations.list("b", None),
            await store.runs.list("b", None),
            await store.approvals.list("b"),
            await store.escalations.list("b"),
            await store.documents.list("b"),
        ]
        assert [page.items for page in pages] == [[]] * 5
        found: list[list[Any]] = [
            await store.documents.find("b", "d"),
            await store.documents.collections("b"),
            await store.keys.list("b"),
            await store.approvals.of_run("r1", "b"),
            await store.feedback.for_run("r1", "b"),
        ]
        assert found == [[]] * 5
    assert (await store.runs.get("r1", "a", "u1")).status == "running"
    assert (await store.approvals.list("a")).items[0].state == "pending"


async def test_another_user_of_the_tenant_sees_no_conversation_and_no_run(store: Store) -> None:
    conversation_id = await begin(store, "r1", user="u1")
    calls: list[Awaitable[Any]] = [
        store.conversations.get(conversation_id, "a", "u2"),
        store.conversations.delete(conversation_id, "a", "u2"),
        store.conversations.messages(conversation_id, "a", "u2"),
        store.runs.get("r1", "a", "u2"),
        store.runs.start("r2", "a", "u2", conversation_id, "chat", "x", "api", "", START),
    ]
    for call in calls:
        with pytest.raises(Missing):
            await call
    assert (await store.runs.list("a", "u2")).items == []
    assert (await store.conversations.list("a", "u2")).items == []
