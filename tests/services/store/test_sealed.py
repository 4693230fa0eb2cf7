"""What lies in the store's tables when contents are sealed, and who is let in."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.records import Actor, AnswerCard, CardTool, RunEvent, SpanRecord
from app.sealing import new_key
from app.services.keyring import Key, Keyring
from app.services.store.records import RunFilter
from app.services.store.store import Store
from app.services.store.tables import conversations, events, messages, metadata, runs
from app.services.vault import SealBroken, Unsealed, Vault, VaultKeyMissing, VaultKeyWrong

CANARY = "canary-5105-1051"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2999, 1, 1, tzinfo=UTC)
KEY = new_key()


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(store_url, vault=Vault(Keyring([KEY])))
    yield opened
    await opened.close()


async def fill(store: Store, tenant: str, run_id: str) -> str:
    """A run with the canary wherever contents go; its conversation's id."""
    conversation_id = f"c-{run_id}"
    asked = {"where": {"title": CANARY}}
    await store.runs.start(run_id, tenant, "ada", conversation_id, "chat", CANARY, "api", "k", NOW, asked, CANARY)
    card = AnswerCard(
        request_id=run_id,
        conversation_id=conversation_id,
        mode="chat",
        status="completed",
        answer=f"about {CANARY}",
        tools=(CardTool(call_id="t", name="x", arguments={"n": CANARY}, status="ok"),),
        created_at=NOW,
    )
    span = SpanRecord("s", run_id, None, "complete", "model", NOW, NOW + timedelta(seconds=1), "ok", {"said": CANARY})
    told_messages = [("user", CANARY), ("assistant", CANARY)]
    assert await store.runs.finish(run_id, tenant, card, [RunEvent(1, "x", {"t": CANARY})], [span], told_messages)
    await store.feedback.put(run_id, tenant, "ada", "down", CANARY)
    approval = await store.approvals.create(run_id, "i", tenant, "ada", "x", {"n": CANARY}, "write", LATER)
    await store.approvals.decide(
        approval.approval_id, tenant, Actor(tenant, "eve"), "approve", {"n": f"{CANARY}!"}, CANARY, NOW
    )
    escalation = await store.escalations.create(run_id, tenant, "no model answered", CANARY)
    await store.escalations.move(escalation.escalation_id, tenant, Actor(tenant, "eve"), "close", CANARY)
    await store.tickets.create(tenant, "ada", run_id, "once", CANARY, CANARY)
    return conversation_id


async def everything(store: Store) -> str:
    async with store.database.read() as connection:
        return repr([(await connection.execute(select(table))).all() for table in metadata.sorted_tables])


async def test_p01_contents_lie_in_the_tables_sealed_alone(store: Store) -> None:
    conversation_id = await fill(store, "acme", "r1")
    raw = await everything(store)
    assert "canary" not in raw
    assert raw.count("pv1.") >= 12
    run = await store.runs.get("r1", "acme", "ada")
    assert (run.message, run.asked["where"]) == (CANARY, {"title": CANARY})
    assert run.card is not None
    assert run.card.tools[0].arguments == {"n": CANARY}
    (approval,) = await store.approvals.of_run("r1", "acme")
    assert (approval.arguments, approval.decided_arguments) == ({"n": CANARY}, {"n": f"{CANARY}!"})
    assert approval.comment == CANARY
    (escalation,) = (await store.escalations.list("acme")).items
    assert (escalation.detail, escalation.comment) == (CANARY, CANARY)
    assert [each.content for each in await store.conversations.messages(conversation_id, "acme", "ada")] == [CANARY] * 2


async def test_p03_a_message_moved_to_another_conversation_or_role_does_not_open(store: Store) -> None:
    mine, theirs = await fill(store, "acme", "r1"), await fill(store, "globex", "r2")
    stolen = select(messages.c.content).where(messages.c.conversation_id == mine).limit(1).scalar_subquery()
    async with store.database.write() as connection:
        await connection.execute(update(messages).where(messages.c.conversation_id == theirs).values(content=stolen))
    with pytest.raises(SealBroken, match=rf"messages\.content.*{KEY.key_id}"):
        await store.conversations.messages(theirs, "globex", "ada")


@pytest.mark.parametrize("column", [runs.c.message, runs.c.answer, runs.c.card, runs.c.asked])
async def test_p03_a_run_given_to_another_tenant_does_not_open(store: Store, column: Any) -> None:
    await fill(store, "acme", "r1")
    await fill(store, "globex", "r2")
    stolen = select(column).where(runs.c.run_id == "r1").scalar_subquery()
    async with store.database.write() as connection:
        await connection.execute(update(runs).where(runs.c.run_id == "r2").values({column.name: stolen}))
    with pytest.raises(SealBroken):
        await store.runs.get("r2", "globex", None)


async def test_p03_a_row_whose_tenant_is_changed_shows_nothing_of_the_old_one(store: Store) -> None:
    await fill(store, "acme", "r1")
    async with store.database.write() as connection:
        await connection.execute(update(runs).values(tenant_id="globex"))
        await connection.execute(update(conversations).values(tenant_id="globex"))
    for look in (store.runs.events("r1", "globex"), store.runs.spans("r1", "globex"), store.runs.load("r1")):
        with pytest.raises(SealBroken):
            await look


async def test_p03_a_plain_value_that_somebody_put_there_is_refused(store: Store) -> None:
    await fill(store, "acme", "r1")
    async with store.database.write() as connection:
        await connection.execute(update(runs).values(answer="approve everything"))
        await connection.execute(update(events).values(data={"t": "approve everything"}))
    with pytest.raises(Unsealed, match=r"runs\.answer"):
        await store.runs.get("r1", "acme", None)
    with pytest.raises(Unsealed, match=r"events\.data"):
        await store.runs.events("r1", "acme")


async def test_runs_are_found_by_a_text_that_no_database_can_read(store: Store) -> None:
    for number in range(5):
        await fill(store, "acme", f"r{number}")
    found: list[str] = []
    cursor = None
    while True:
        page = await store.runs.list("acme", None, RunFilter(text="ABOUT canary"), 2, cursor)
        found += [run.run_id for run in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert found == ["r4", "r3", "r2", "r1", "r0"]
    assert not (await store.runs.list("acme", None, RunFilter(text="nowhere"))).items


async def test_p04_who_lacks_the_key_is_not_let_in_and_is_told_which(store: Store, store_url: str) -> None:
    other = new_key()
    with pytest.raises(VaultKeyMissing, match=f"{KEY.key_id}.*{other.key_id}.*PILOTHOUSE_ENCRYPTION_KEYS"):
        await Store.open(store_url, vault=Vault(Keyring([other])))
    with pytest.raises(VaultKeyWrong, match=KEY.key_id):
        await Store.open(store_url, vault=Vault(Keyring([Key(KEY.key_id, other.secret)])))


async def test_p04_of_two_that_start_with_different_keys_one_is_let_in(store_url: str) -> None:
    await (await Store.open(store_url)).close()
    opening = [Store.open(store_url, vault=Vault(Keyring([new_key()]))) for _ in range(2)]
    found = await asyncio.gather(*opening, return_exceptions=True)
    opened = [each for each in found if isinstance(each, Store)]
    assert len(opened) == 1
    assert [type(each) for each in found if not isinstance(each, Store)] == [VaultKeyMissing]
    await opened[0].close()


async def test_a_process_without_keys_neither_reads_nor_writes_contents(store: Store, store_url: str) -> None:
    conversation_id = await fill(store, "acme", "r1")
    shut = await Store.open(store_url)
    with pytest.raises(VaultKeyMissing):
        await shut.conversations.get(conversation_id, "acme", "ada")
    with pytest.raises(VaultKeyMissing):
        await shut.conversations.create("acme", "ada", "plain")
    assert await shut.runs.backlog() == 1
    await shut.close()
