"""The sliding window in process and in Redis: one set of claims for both."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from app.services.quota.shared_window import SharedWindows
from app.services.quota.window import SLOT_MS, WINDOW_S, LocalWindows, Use, Windows
from tests.redis_server import redis_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running.path


@pytest.fixture
async def redis(server: str) -> AsyncIterator[Redis]:
    client: Redis = Redis(unix_socket_path=server, socket_timeout=2)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(params=["local", "shared"])
async def windows(request: pytest.FixtureRequest, redis: Redis) -> Windows:
    return LocalWindows() if request.param == "local" else SharedWindows(redis)


async def test_a_limit_lets_exactly_so_many_through_and_says_how_long_to_wait(windows: Windows) -> None:
    taken = [await windows.take([Use("{a}:r", 5, 1)]) for _ in range(8)]
    assert [item.refused for item in taken] == [None] * 5 + [0] * 3
    assert [item.left[0] for item in taken] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert all(WINDOW_S - 5 < item.wait_s <= WINDOW_S + SLOT_MS / 1_000 for item in taken[5:])


async def test_uses_of_several_scopes_are_taken_together_or_not_at_all(windows: Windows) -> None:
    tenant, user = Use("{a}:tenant", 10, 1), Use("{a}:user:ann", 1, 1)
    assert (await windows.take([tenant, user])).refused is None
    refused = await windows.take([tenant, user])
    assert (refused.refused, refused.left) == (1, (9, 0))
    assert (await windows.take([tenant])).left == (8,)


async def test_each_limit_tells_when_its_own_oldest_use_leaves_and_a_look_uses_nothing(windows: Windows) -> None:
    await windows.take([Use("{a}:tenant", 10, 1)])
    await asyncio.sleep(5 * SLOT_MS / 1_000)
    taken = await windows.take([Use("{a}:tenant", 10, 1), Use("{a}:user", 5, 1), Use("{a}:tokens", 9, 0)])
    assert taken.left == (8, 4, 9)
    tenant_s, user_s, tokens_s = taken.resets_s
    assert 0 == tokens_s < WINDOW_S - 5 < tenant_s < user_s <= WINDOW_S + SLOT_MS / 1_000
    full = await windows.take([Use("{a}:user", 4, 0), Use("{a}:user", 1, 0), Use("{a}:tokens", 9, 9)])
    assert (full.refused, full.left) == (None, (3, 0, 0))
    refused = await windows.take([Use("{a}:tenant", 10, 0), Use("{a}:tokens", 9, 1)])
    assert (refused.refused, refused.left) == (1, (8, 0))


async def test_a_call_that_needs_more_than_a_minute_allows_is_refused(windows: Windows) -> None:
    assert (await windows.take([Use("{a}:t", 100, 101)])).refused == 0
    assert (await windows.take([Use("{a}:t", 100, 100)])).refused is None


async def test_tokens_that_were_not_used_come_back_and_more_than_reserved_is_counted(windows: Windows) -> None:
    use = Use("{a}:t", 1_000, 900)
    taken = await windows.take([use])
    await windows.correct(["{a}:t"], taken.slot, -700)
    assert (await windows.take([Use("{a}:t", 1_000, 800)])).left == (0,)
    await windows.correct(["{a}:t"], taken.slot, 50)
    assert (await windows.take([Use("{a}:t", 1_000, 1)])).refused == 0
    await windows.correct(["{a}:t"], taken.slot, -10_000)  # never below what that moment used
    assert (await windows.take([Use("{a}:t", 1_000, 0)])).left[0] <= 1_000


@settings(max_examples=150, deadline=None)
@example([(0.019, 1), (59.981, 10)])
@given(
    st.lists(
        st.tuples(st.floats(0, 30, allow_nan=False), st.integers(1, 7)),
        min_size=1,
        max_size=60,
    )
)
def test_no_minute_whatever_holds_more_than_the_limit(steps: list[tuple[float, int]]) -> None:
    limit, now, let_in = 10, 1_000.0, []
    windows = LocalWindows(lambda: now)

    async def walk() -> None:
        nonlocal now
        for pause_s, amount in steps:
            now += pause_s
            if (await windows.take([Use("k", limit, amount)])).refused is None:
                let_in.append((now, amount))

    asyncio.run(walk())
    for start, _ in let_in:
        assert sum(amount for at, amount in let_in if start <= at < start + WINDOW_S) <= limit


async def test_what_leaves_the_window_is_free_again_after_the_wait_that_was_told() -> None:
    now = [0.0]
    windows = LocalWindows(lambda: now[0])
    await windows.take([Use("k", 2, 1)])
    now[0] = 30.0
    await windows.take([Use("k", 2, 1)])
    refused = await windows.take([Use("k", 2, 2)])
    now[0] += refused.wait_s - 2 * SLOT_MS / 1_000
    assert (await windows.take([Use("k", 2, 2)])).refused == 0
    now[0] += 3 * SLOT_MS / 1_000
    assert (await windows.take([Use("k", 2, 2)])).refused is None


def _racing(socket: str) -> str:
    return (
        "import asyncio\n"
        "from redis.asyncio import Redis\n"
        "from app.services.quota.shared_window import SharedWindows\n"
        "from app.services.quota.window import Use\n"
        "async def main():\n"
        f"    redis = Redis(unix_socket_path={socket!r}, socket_timeout=5)\n"
        "    windows = SharedWindows(redis)\n"
        "    taken = await asyncio.gather(*(windows.take([Use('{a}:race', 50, 1)]) for _ in range(100)))\n"
        "    print(sum(item.refused is None for item in taken))\n"
        "    await redis.aclose()\n"
        "asyncio.run(main())\n"
    )


async def _run(code: str) -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return int(output)


async def test_r09_two_processes_share_one_exact_rate(redis: Redis, server: str) -> None:
    assert sum(await asyncio.gather(*(_run(_racing(server)) for _ in range(2)))) == 50


async def test_r10_without_redis_the_rate_is_kept_by_this_process_and_nothing_fails(tmp_path: Path) -> None:
    gone: Redis = Redis(unix_socket_path=str(tmp_path / "nobody"), socket_timeout=0.1)
    windows = SharedWindows(gone)
    taken = [await windows.take([Use("{a}:r", 3, 1)]) for _ in range(5)]
    await windows.correct(["{a}:r"], taken[0].slot, -1)
    assert [item.refused for item in taken] == [None] * 3 + [0] * 2
    await gone.aclose()


async def test_r10_a_redis_that_goes_away_opens_no_fresh_window(tmp_path: Path) -> None:
    with redis_server(tmp_path) as running:
        client: Redis = Redis(unix_socket_path=running.path, socket_timeout=0.5)
        windows = SharedWindows(client)
        for _ in range(3):
            assert (await windows.take([Use("{a}:r", 3, 1)])).refused is None
        running.kill()
        assert (await windows.take([Use("{a}:r", 3, 1)])).refused == 0
        await client.aclose()


async def test_counts_that_nobody_touches_are_forgotten() -> None:
    now = [0.0]
    windows = LocalWindows(lambda: now[0])
    for number in range(5_000):
        await windows.take([Use(f"k{number}", 5, 1)])
        now[0] += 0.1
    assert len(windows._counts) < 5_000
