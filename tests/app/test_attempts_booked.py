"""Every attempt of a call on the real ledger, whatever became of it."""

import asyncio
from pathlib import Path
from typing import Any

from app.records import Charge, Payer
from app.services.gateway.ports import OpenDesk
from app.services.gateway.scripted import Say
from app.services.quota.ledger import Hold, Ledger
from graphs.errors import UpstreamError, UpstreamTimeout
from graphs.types import Usage
from tests.services.gateway.chain import ACME, ASK, Chain, chain
from tests.services.quota.kit import books, tenants

LIMIT = 1_000_000


class LedgerDesk(OpenDesk):
    """A desk with one budget, kept by a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> Hold:
        return await self._ledger.reserve(charge, tenants(LIMIT))


def route(ledger: Ledger, scripts: dict[str, Any], **config: Any) -> Chain:
    desk: Any = LedgerDesk(ledger)
    return chain(scripts, books=desk, **config)


async def test_r13_each_attempt_has_its_row_and_its_cost_and_the_budget_pays_their_sum(tmp_path: Path) -> None:
    async with books(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}") as kept:
        ledger = kept.open()
        scripts = {
            "a": [Say(("Half an ",), error=UpstreamError("reset"))],
            "b": [UpstreamTimeout("late")],
            "c": [UpstreamError("503")],
            "d": [Say(("answer",), usage=Usage(120, 9))],
        }
        asked = route(ledger, scripts, on_broken_stream="continue")
        await asked.ask()
        rows = kept.rows("SELECT model, attempt, state, outcome, cost_micros, estimated FROM ledger ORDER BY attempt")
        assert [tuple(row[:4]) for row in rows] == [
            ("a", 1, "settled", "failed"),
            ("b", 2, "settled", "failed"),
            ("c", 3, "settled", "failed"),
            ("d", 4, "settled", "ok"),
        ]
        half, late, down, good = (row[4] for row in rows)
        assert half > 0  # it spoke
        assert late > 0  # it was reading
        assert (down, good) == (0, 120 * 2 + 9 * 8)
        assert [bool(row[5]) for row in rows] == [True, True, False, False]
        assert sum(attempt.bill.cost_micros for attempt in asked.attempts) == sum(row[4] for row in rows)
        (budget,) = tenants(LIMIT)
        assert await ledger.standing(budget) == (sum(row[4] for row in rows), LIMIT)


async def test_c01_calls_that_their_clients_left_are_settled_when_the_gateway_closes(tmp_path: Path) -> None:
    async with books(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}") as kept:
        asked = route(kept.open(), {"a": lambda _: Say(("Hello", "you"), wait_between=asyncio.Event())})
        streams = [asked.gateway.stream(ASK, ACME) for _ in range(20)]
        for stream in streams[:10]:
            await anext(stream)
        for stream in streams:  # ten in the middle, ten before they began
            await stream.aclose()
        await asked.gateway.recovery.close()
        assert kept.one("SELECT count(*), min(state), max(outcome) FROM ledger") == (10, "settled", "cancelled")
