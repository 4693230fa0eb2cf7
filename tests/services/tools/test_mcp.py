"""Real MCP servers, good and bad, over both transports."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from app.records import Principal
from app.services.store.store import Store
from app.services.tools.registry import Registry
from app.services.tools.tables import calls
from graphs.types import ToolProposal
from tests.services.tools.mcp_peer import peer
from tests.services.tools.shed import ADA, accept, box, call, served, shed, states, stdio, until

READ = {"risk": "read"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}")
    yield opened
    await opened.close()


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


async def swap_and_accept(registry: Registry) -> None:
    assert states(registry) == {"peer__echo": "new", "peer__swap": "new", "peer__environment": "new"}
    assert box(registry).specs() == ()
    await accept(registry, "peer__echo", "peer__swap", "peer__environment")
    assert (await call(registry, "peer__echo", text="hi")).content == "hi"
    before = box(registry)
    assert (await call(registry, "peer__swap", "c2")).status == "ok"
    await until(lambda: states(registry)["peer__echo"] == "changed")
    old = await before.run(ToolProposal("c3", "peer__echo", {"text": "hi"}))
    assert (old.status, "not defined any more" in old.content) == ("refused", True)
    assert [spec.name for spec in box(registry).specs()] == ["peer__swap", "peer__environment"]
    await accept(registry, "peer__echo")
    assert (await call(registry, "peer__echo", "c4", text="hi")).content == "the other says hi"


SWAPPED = {"echo": READ, "swap": READ, "environment": READ}


async def test_t13_a_tool_that_its_server_swaps_is_off_until_it_is_accepted_anew(store: Store) -> None:
    async with served(peer()) as url, shed(store, peer={"url": url, "tools": SWAPPED}) as registry:
        await swap_and_accept(registry)


async def test_t13_t15_the_same_of_a_child_which_gets_no_environment_but_what_is_named(store: Store) -> None:
    given = {"NAMED": "yes", "SECRET": "no"}
    async with shed(store, environment=given, peer=stdio("mcp_peer.py", env=("NAMED",), **SWAPPED)) as registry:
        await swap_and_accept(registry)
        told = json.loads((await call(registry, "peer__environment", "c5")).content)
        assert {name: value for name, value in told.items() if name != "LC_CTYPE"} == {"NAMED": "yes"}


async def test_t13_a_pin_of_the_file_answers_for_one_definition_alone(store: Store) -> None:
    async with served(peer()) as url:
        tools = {"echo": READ, "fail": READ | {"pin": "0" * 64}}
        async with shed(store, peer={"url": url, "tools": tools}) as registry:
            assert states(registry) == {"peer__echo": "new", "peer__fail": "changed"}
            digests = {entry.name: entry.digest for entry in registry.entries()}
        tools["fail"] = READ | {"pin": digests["peer__fail"]}
        async with shed(store, peer={"url": url, "tools": tools}) as registry:
            assert states(registry) == {"peer__echo": "new", "peer__fail": "on"}


async def test_t13_tools_of_two_servers_have_two_names_and_neither_is_ours(store: Store) -> None:
    async with served(peer()) as one, served(peer()) as two:
        both = {name: {"url": url, "tools": {"echo": READ}} for name, url in (("one", one), ("two", two))}
        async with shed(store, **both) as registry:
            await accept(registry, "one__echo", "two__echo")
            assert [spec.name for spec in box(registry).specs()] == ["one__echo", "two__echo"]
            assert len(set(registry.names)) == len(registry.names)


async def test_a07_a_tool_is_reached_under_its_one_name_by_those_it_is_for(store: Store) -> None:
    grants = {"echo": READ | {"tenants": ["acme"], "scope": "documents"}, "mark": READ | {"enabled": False}}
    async with served(peer()) as url, shed(store, peer={"url": url, "tools": grants}) as registry:
        await accept(registry, "peer__echo", "peer__mark")
        trusted = Principal("acme", "ada", frozenset({"chat", "documents"}))
        assert [spec.name for spec in box(registry, trusted).specs()] == ["peer__echo"]
        for stranger in (ADA, Principal("other", "bo", frozenset({"owner"}))):
            assert box(registry, stranger).specs() == ()
        for name in (
            "echo",
            "peer__Echo",
            "PEER__echo",
            "peer.echo",
            "peer__mark",
            "peer__hang",
            "peer__echo ",
            "hang",
        ):
            refused = await box(registry, trusted).run(ToolProposal("c1", name, {"text": "hi"}))
            assert (refused.status, "there is no tool" in refused.content) == ("refused", True)


@pytest.mark.parametrize(
    ("tool", "shown"),
    [
        ("picture", "[left out: a picture, image/png, 300 bytes]\na cat"),
        ("page", "Hi & bye"),
        ("blob", "[left out: a file, file:///a.bin, a/b, 3 bytes]"),
        ("noise", "[left out: binary data, 1024 bytes]"),
    ],
)
async def test_t14_what_is_no_text_becomes_a_note_and_html_its_words(store: Store, tool: str, shown: str) -> None:
    async with served(peer()) as url, shed(store, peer={"url": url, "tools": {tool: READ}}) as registry:
        await accept(registry, f"peer__{tool}")
        assert (await call(registry, f"peer__{tool}")).content == shown


async def test_t14_a_long_answer_is_cut_one_without_measure_is_refused_and_the_server_goes_on(store: Store) -> None:
    grants = {"flood": READ | {"max_output_chars": 100}, "echo": READ}
    for json_response in (False, True):
        async with (
            served(peer(), json_response=json_response) as url,
            shed(store, peer={"url": url, "tools": grants}) as registry,
        ):
            await accept(registry, "peer__flood", "peer__echo")
            long = await call(registry, "peer__flood", megabytes=1)
            assert long.content == "x" * 100 + f"\n[cut: {(1 << 20) - 100} more characters]"
            assert (await call(registry, "peer__flood", "c2", megabytes=8)).status == "refused"
            assert (await call(registry, "peer__echo", "c3", text="hi")).content == "hi"


async def test_t14_a_child_that_sends_100_mb_is_killed_at_4_and_started_again(store: Store) -> None:
    async with shed(store, raw=stdio("raw_peer.py", flood=READ, wound=READ)) as registry:
        await accept(registry, "raw__flood", "raw__wound")
        flooded = await call(registry, "raw__flood")
        assert (flooded.status, flooded.content.startswith("raw failed")) == ("refused", True)
        assert (await call(registry, "raw__wound", "c2")).status == "ok"


async def test_t14_a_tool_that_hangs_is_given_up_and_its_server_goes_on(store: Store) -> None:
    grants = {"hang": READ | {"timeout_s": 0.1}, "echo": READ}
    async with served(peer()) as url, shed(store, peer={"url": url, "tools": grants}) as registry:
        await accept(registry, "peer__hang", "peer__echo")
        hung = await call(registry, "peer__hang")
        assert (hung.status, hung.content) == ("refused", "peer__hang gave no answer within 0.1 s")
        assert (await call(registry, "peer__echo", "c2", text="hi")).content == "hi"


async def test_t14_a_child_that_hangs_altogether_is_killed_and_started_again(store: Store, tmp_path: Path) -> None:
    server = stdio("raw_peer.py", freeze=READ | {"timeout_s": 10}) | {"connect_timeout_s": 1}
    async with shed(store, raw=server) as registry:
        await accept(registry, "raw__freeze")
        arguments = {"path": str(tmp_path / "frozen")}
        frozen = asyncio.create_task(call(registry, "raw__freeze", **arguments))
        await until((tmp_path / "frozen").exists)
        frozen.cancel()
        await asyncio.wait({frozen})
        assert (await call(registry, "raw__freeze", "c2", **arguments)).content == "thawed"


async def test_a_call_in_which_its_server_was_killed_has_its_effect_once(store: Store, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    async with shed(store, raw=stdio("raw_peer.py", linger={"risk": "write"})) as registry:
        await accept(registry, "raw__linger")
        first = asyncio.create_task(call(registry, "raw__linger", path=str(effects)))
        await until(lambda: effects.exists() and effects.read_text().endswith("\n"))
        os.kill(int(effects.read_text()), signal.SIGKILL)
        assert (await first).status == "refused"
        again = await call(registry, "raw__linger", path=str(effects))
        assert (again.status, "its outcome is not known" in again.content) == ("refused", True)
        assert len(effects.read_text().splitlines()) == 1
    async with store.database.read() as connection:
        (row,) = await connection.execute(select(calls))
    assert (row.call_key, row.tenant_id, row.tool, row.outcome) == ("r1:c1", "acme", "raw__linger", "begun")
    (entry,) = [entry for entry in await store.audit.latest("acme", 10) if entry.action == "tool.called"]
    assert (entry.user_id, entry.subject, set(entry.facts)) == ("ada", "raw__linger", {"risk", "run", "definition"})


async def test_no_process_is_left_however_little_it_wants_to_go(store: Store) -> None:
    async with shed(store, raw=stdio("raw_peer.py", "--stubborn", wound=READ)) as registry:
        await accept(registry, "raw__wound")
        processes = [int(pid) for pid in (await call(registry, "raw__wound")).content.split()]
        assert all(map(is_alive, processes))
    await until(lambda: not any(map(is_alive, processes)), 5)


async def test_a_risk_is_never_lowered_by_what_a_server_says_of_itself(store: Store) -> None:
    grants = {"humble": {"risk": "destructive"}, "honest": READ}
    async with served(peer()) as url, shed(store, peer={"url": url, "tools": grants}) as registry:
        risks = {entry.name: entry.spec.risk for entry in registry.entries() if entry.spec and entry.kind == "mcp"}
        assert risks == {"peer__humble": "destructive", "peer__honest": "destructive"}


async def test_a_schema_that_would_cost_us_time_or_a_request_is_not_used(store: Store) -> None:
    async with shed(store, raw=stdio("raw_peer.py", far=READ, ahead=READ, slow=READ)) as registry:
        why = {entry.name: entry.why for entry in registry.entries() if entry.state == "absent"}
        assert set(why) == {"raw__far", "raw__ahead"}
        assert "outside it" in why["raw__far"]
        assert "linear time" in why["raw__ahead"]
        await accept(registry, "raw__slow")
        assert (await call(registry, "raw__slow", a="a" * 60 + "!")).status == "retry"


async def test_s10_a_server_is_reached_past_the_proxies_of_the_environment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with served(peer()) as url, shed(store, peer={"url": url, "tools": {"echo": READ}}) as registry:
        assert states(registry) == {"peer__echo": "new"}


async def test_a_server_that_is_away_is_told_and_connected_to_when_it_comes(store: Store) -> None:
    async with served(peer()) as url:
        pass
    async with shed(store, peer={"url": url, "tools": {"echo": READ}}) as registry:
        (entry,) = [entry for entry in registry.entries() if entry.kind == "mcp"]
        assert (entry.state, entry.why) == ("absent", "ConnectError")
        assert (await call(registry, "peer__echo", text="hi")).status == "refused"
