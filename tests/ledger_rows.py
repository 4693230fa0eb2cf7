"""Rows put into the ledger past its own door, for tests of what reads it."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import insert

from app.services.quota.tables import budgets, ledger
from app.services.store.store import Store


def row(tenant: str, user: str, model: str, cost_micros: int, at: datetime, **given: Any) -> dict[str, Any]:
    """An ended call; `given` overrides any column."""
    values = {
        "call_id": uuid4().hex,
        "request_id": uuid4().hex,
        "run_id": uuid4().hex,
        "tenant_id": tenant,
        "user_id": user,
        "key_id": f"key-{user}",
        "feature": "search",
        "task": "chat",
        "route": "default",
        "model": model,
        "model_version": "",
        "provider": "lab",
        "attempt": 1,
        "streamed": False,
        "state": "settled",
        "outcome": "ok",
        "error_code": "",
        "period": f"{at:%Y-%m}",
        "day": f"{at:%Y-%m-%d}",
        "reserved_micros": cost_micros,
        "cost_micros": cost_micros,
        "price_source": "config",
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "estimated": False,
        "process_id": "p",
        "started_us": int(at.astimezone(UTC).timestamp() * 1e6),
        "latency_ms": 10.0,
        "first_token_ms": None,
    }
    return values | given


async def book(store: Store, *rows: dict[str, Any]) -> None:
    async with store.database.write() as connection:
        await connection.execute(insert(ledger), list(rows))


async def set_budget(store: Store, scope: str, period: str, spent_micros: int, held_micros: int = 0) -> None:
    """A budget's row as the ledger keeps it; `scope` as in `tenant:acme` or `user:acme/ann`."""
    async with store.database.write() as connection:
        await connection.execute(
            insert(budgets).values(scope=scope, period=period, spent_micros=spent_micros, held_micros=held_micros)
        )
