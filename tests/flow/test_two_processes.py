"""API processes with homes of their own on one PostgreSQL and one Redis are one installation."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
import pytest_asyncio

from tests.databases import stored
from tests.flow.fleet import Api, Fleet, fleet
from tests.flow.lab import Lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory, new_postgres_url: Callable[[], str]) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("two"), Lab(), new_postgres_url()) as up:
        for tenant, user in (("acme", "ann"), ("umbrella", "eve"), ("narrow", "ned")):
            await up.admit(tenant, user, "chat", "approvals", "runs")
        yield up


async def tickets(api: Api, name: str) -> list[dict[str, Any]]:
    async with api.client() as client:
        found = (await client.get("/api/ai/tickets")).json()["items"]
    return [ticket for ticket in found if name in ticket["body"]]


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]  # processes are started


async def test_k01_a_reader_leaves_one_process_and_goes_on_at_the_other(one: Fleet) -> None:
    async with one.a.asked("hold first") as run_id:
        pass  # the client hangs up
    async with asyncio.timeout(40), aclosing(one.b.events(run_id)) as events:
        started = await anext(events)
        said = await anext(events)
    assert (started.number, started.type, said.data) == (1, "run.started", {"text": "One. "})
    rest = []
    async with asyncio.timeout(40), aclosing(one.b.events(run_id, after=said.number)) as events:
        one.lab.gate("first").set()
        rest = [found async for found in events]
    assert [found.number for found in rest] == list(range(said.number + 1, said.number + 1 + len(rest)))
    assert (rest[0].data, rest[-1].type) == ({"text": "Two."}, "run.completed")
    assert (await one.a.card(run_id))["answer"] == (await one.b.card(run_id))["answer"] == "One. Two."


async def test_a05_what_belongs_to_another_tenant_is_not_there_at_any_process(one: Fleet) -> None:
    async with one.a.asked("hold secret") as run_id:
        for api in (one.a, one.b):
            async with api.client("eve") as eve:
                tries = [
                    await eve.get(f"/api/ai/runs/{run_id}"),
                    await eve.get(f"/api/ai/runs/{run_id}/events"),
                    await eve.post(f"/api/ai/runs/{run_id}/cancel"),
                ]
            assert [answer.status_code for answer in tries] == [404] * 3
            assert (await api.card(run_id))["status"] == "running"
        one.lab.gate("secret").set()
        await one.b.comes_to(run_id, "completed")


async def test_a_cancel_at_the_other_process_ends_the_run(one: Fleet) -> None:
    async with one.a.asked("hold cancelled") as run_id, one.b.client() as client:
        answer = await client.post(f"/api/ai/runs/{run_id}/cancel")
        again = await client.post(f"/api/ai/runs/{run_id}/cancel")
    assert (answer.json()["status"], again.status_code) == ("cancelled", 409)
    assert (await one.a.card(run_id))["status"] == "cancelled"


async def test_an_approval_asked_for_at_one_process_is_decided_at_the_other_once(one: Fleet) -> None:
    async with one.a.client() as at_a, one.b.client() as at_b:
        one.lab.gate("once").set()
        asked = (await at_a.post("/api/ai/chat", json={"message": "open a ticket once", "mode": "agent"})).json()
        assert asked["status"] == "waiting", asked
        path = f"/api/ai/approvals/{asked['pendingApproval']}"
        tries = [client.post(path, json={"decision": "approve"}) for client in (at_b, at_a, at_b, at_a)]
        codes = [answer.status_code for answer in await asyncio.gather(*tries)]
        assert sorted(codes) == [200, 409, 409, 409]
        for api in (one.a, one.b):
            assert (await api.comes_to(asked["requestId"], "completed"))["answer"] == "Done."
        assert len((await at_b.get("/api/ai/tickets")).json()["items"]) == 1


async def test_a_conversation_begun_at_one_process_goes_on_at_the_other(one: Fleet) -> None:
    one.lab.gate("said").set()
    async with one.a.client() as at_a, one.b.client() as at_b:
        begun = (await at_a.post("/api/ai/chat", json={"message": "hold said"})).json()
        more = {"message": "again hold said", "conversationId": begun["conversationId"]}
        assert (await at_b.post("/api/ai/chat", json=more)).json()["status"] == "completed"
        assert "One. Two." in [turn["content"] for turn in one.lab.heard[-1]["messages"]]
        read = (await at_a.get(f"/api/ai/conversations/{begun['conversationId']}")).json()
    assert [turn["content"] for turn in read["messages"]] == ["hold said", "One. Two.", "again hold said", "One. Two."]


async def test_p05_a_conversation_erased_at_one_process_leaves_nothing_of_a_run_that_waits_at_the_other(
    one: Fleet,
) -> None:
    async with one.a.client() as at_a, one.b.client() as at_b:
        body = {"message": "open a ticket canary-71c4", "mode": "agent"}
        asked = (await at_a.post("/api/ai/chat", json=body)).json()
        held, thread = stored(one.environment["PILOTHOUSE_DATABASE_URL"]), f"/{asked['requestId']}"
        assert thread in held
        assert "canary-71c4" not in held, "it lies there sealed"
        assert (await at_b.delete(f"/api/ai/conversations/{asked['conversationId']}")).status_code == 204
    assert thread not in stored(one.environment["PILOTHOUSE_DATABASE_URL"])


async def test_a_process_with_another_owner_key_does_not_start_and_says_why(one: Fleet) -> None:
    process = await one.starting("stranger", stderr=asyncio.subprocess.PIPE, PILOTHOUSE_OWNER_KEY="another" * 8)
    _, said = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode
    assert b"set PILOTHOUSE_OWNER_KEY to the one of the other processes" in said
    async with one.a.client("owner") as owner:
        assert (await owner.get("/api/ai/keys")).status_code == 200


async def test_p04_a_process_with_another_key_of_contents_does_not_start_and_says_which_it_lacks(one: Fleet) -> None:
    keys = one.environment["PILOTHOUSE_ENCRYPTION_KEYS"].replace("fleet:", "stranger:")
    process = await one.starting("keyless", stderr=asyncio.subprocess.PIPE, PILOTHOUSE_ENCRYPTION_KEYS=keys)
    _, said = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode
    assert b"sealed with the key 'fleet', which is not at hand (there are: 'stranger')" in said
    assert keys.partition(":")[2].encode() not in said


async def test_r09_places_are_counted_over_both_processes(one: Fleet) -> None:
    async with AsyncExitStack() as stack:
        for number, api in enumerate((one.a, one.b)):
            await stack.enter_async_context(api.asked(f"hold place{number}", "ned"))
        for api in (one.a, one.b):
            async with api.client("ned") as client:
                assert (await client.post("/api/ai/chat", json={"message": "hold none"})).status_code == 429
        for number in range(2):
            one.lab.gate(f"place{number}").set()


async def test_a_tenant_switched_off_at_one_process_stops_at_the_other(one: Fleet) -> None:
    one.fake.gone.clear()
    async with one.a.asked("hold switched") as run_id, one.b.client("owner") as owner:
        await owner.put("/api/ai/switches/tenant/acme", json={"reason": "it runs away"})
        await asyncio.wait_for(one.fake.gone.wait(), 40)
        assert (await owner.delete("/api/ai/switches/tenant/acme")).status_code in {200, 204}
    card = await one.b.comes_to(run_id, "failed")
    assert "it runs away" in card["error"]["message"]
    one.lab.gate("again").set()
    async with one.a.client() as ann, asyncio.timeout(40):
        while (await ann.post("/api/ai/chat", json={"message": "hold again"})).status_code == 403:
            await asyncio.sleep(0.1)  # until this process has heard that the switch is on again


async def test_k01_a_run_whose_process_is_killed_after_its_approval_goes_on_at_another(one: Fleet) -> None:
    doomed = await one.api("doomed")
    async with doomed.client() as at_doomed:
        body = {"message": "open a ticket heir", "mode": "agent"}
        asked = (await at_doomed.post("/api/ai/chat", json=body)).json()
        path = f"/api/ai/approvals/{asked['pendingApproval']}"
        assert (await at_doomed.post(path, json={"decision": "approve"})).status_code == 200
        async with asyncio.timeout(40):
            while not await tickets(one.b, "heir"):
                await asyncio.sleep(0.05)
    doomed.process.kill()
    one.lab.gate("heir").set()
    assert (await one.b.comes_to(asked["requestId"], "completed"))["answer"] == "Done."
    assert len(await tickets(one.b, "heir")) == 1


# Last: from here on there is one process.
async def test_k06_a_process_that_is_stopped_ends_its_runs_and_the_other_shows_it(one: Fleet) -> None:
    async with one.a.asked("hold stopped") as run_id:
        pass
    async with asyncio.timeout(40), aclosing(one.b.events(run_id)) as events:
        assert (await anext(events)).type == "run.started"
        one.a.process.send_signal(signal.SIGTERM)
        rest = [found async for found in events]
    assert (rest[-1].type, rest[-1].data["error"]["code"]) == ("run.failed", "interrupted")
    assert (await one.b.card(run_id))["status"] == "failed"
    assert await asyncio.wait_for(one.a.process.wait(), 40) in {0, -signal.SIGTERM}
