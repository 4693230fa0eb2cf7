"""The ledger's statements. Each function runs inside a transaction that the Committer holds.

What decides a race is in the statement: a hold is granted on a locked row where `spent + held + more <= limit`, a row
is settled by an UPDATE that says `state = 'open'`. On both databases whoever changes a budget has locked its row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.services.quota.tables import budget_holds, budgets, ledger, ledger_processes

_COLUMNS: Final = {"tenant": None, "user": ledger.c.user_id, "feature": ledger.c.feature, "key": ledger.c.key_id}


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose budget: a tenant's own, or that of a user, feature or key inside it."""

    kind: Literal["tenant", "user", "feature", "key"]
    tenant_id: str
    name: str = ""

    def __str__(self) -> str:
        tenant = f"{self.kind}:{quote(self.tenant_id, safe='')}"
        return tenant if self.kind == "tenant" else f"{tenant}/{self.name}"


@dataclass(frozen=True, slots=True)
class Account:
    """A scope's budget of one month; where a hold is taken and a cost is booked."""

    scope: Scope
    period: str

    @property
    def row(self) -> tuple[str, str]:
        return str(self.scope), self.period


@dataclass(frozen=True, slots=True)
class Ask:
    """A wish for a hold: `wanted`, or what there is down to `least`; `block` in place of it while plenty is left.

    `unbooked` is what settled calls of this process have cost since it last said so; it turns from held into spent.
    """

    account: Account
    unbooked_micros: int
    limit_micros: int
    wanted_micros: int
    least_micros: int
    block_micros: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What an Ask got (0 for nothing), and how the budget stands after it."""

    granted_micros: int
    spent_micros: int
    held_micros: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a row ends: its new values, and the accounts that it draws on."""

    call_id: str
    values: Mapping[str, Any]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class Return:
    """Credit that a process lets go: `unbooked` because it is spent, `free` because no call needs it."""

    account: Account
    unbooked_micros: int
    free_micros: int


class RowsEnded(Exception):
    """Some rows of a batch were not open. The Committer writes each alone then, and only those give False."""


_INSERT: Final = insert(ledger)
_SETTLED: Final = (
    *("state", "outcome", "error_code", "model_version", "cost_micros", "latency_ms", "first_token_ms"),
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "estimated"),
)
_SETTLE: Final = (
    update(ledger)
    .where(ledger.c.call_id == bindparam("settled_id"), ledger.c.state == "open")
    .values({name: bindparam(f"new_{name}") for name in _SETTLED})
)


def record_open(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Sequence[None]:
    """Write down calls before they are made."""
    connection.execute(_INSERT, list(rows))
    return [None] * len(rows)


def settle(connection: Connection, settlements: Sequence[Settlement]) -> Sequence[bool]:
    """End rows. False for one that is settled already.

    Budgets learn of the cost later (`Ask.unbooked_micros`, `Return`): until then it counts as held, which is never too
    little. A row that was given up for abandoned, because its process seemed dead, is put right by its late settlement.
    """
    ended = connection.execute(_SETTLE, [_settle_parameters(settlement) for settlement in settlements]).rowcount
    if ended == len(settlements):
        return [True] * ended
    if len(settlements) > 1:
        raise RowsEnded
    return [_settle_late(connection, settlements[0])]


def _settle_parameters(settlement: Settlement) -> dict[str, Any]:
    return {f"new_{name}": settlement.values[name] for name in _SETTLED} | {"settled_id": settlement.call_id}


def _settle_late(connection: Connection, settlement: Settlement) -> bool:
    """Settle a row that another process took over; its holds went then."""
    late = (
        update(ledger)
        .where(ledger.c.call_id == settlement.call_id, ledger.c.state == "abandoned")
        .values({name: settlement.values[name] for name in _SETTLED})
    )
    if not connection.execute(late).rowcount:
        return False
    for scope, period in sorted(account.row for account in settlement.accounts):
        _locked(connection, scope, period)
        connection.execute(
            update(budgets)
            .where(budgets.c.scope == scope, budgets.c.period == period)
            .values(spent_micros=_spent_of(scope, period))
        )
    return True


def grant(process_id: str, connection: Connection, asks: Sequence[Ask]) -> Sequence[Grant]:
    """Take holds, never beyond `spent + held <= limit`; a block only while a quarter of the budget stays free."""
    return [_grant(process_id, connection, ask) for ask in asks]


def _grant(process_id: str, connection: Connection, ask: Ask) -> Grant:
    scope, period = ask.account.row
    spent, held = _locked(connection, scope, period)
    if ask.unbooked_micros and _let_go(connection, process_id, ask.account, ask.unbooked_micros, ask.unbooked_micros):
        spent, held = spent + ask.unbooked_micros, held - ask.unbooked_micros
    left = ask.limit_micros - spent - held
    if left - ask.block_micros >= ask.limit_micros // 4 and ask.block_micros > ask.wanted_micros:
        granted = ask.block_micros
    else:
        granted = min(ask.wanted_micros, left) if left >= ask.least_micros else 0
    if granted > 0:
        _hold(connection, process_id, scope, period, granted)
    return Grant(max(granted, 0), spent, held + max(granted, 0))


def _locked(connection: Connection, scope: str, period: str) -> tuple[int, int]:
    """Spent and held of a budget whose row nobody else changes until this transaction ends."""
    where = (budgets.c.scope == scope, budgets.c.period == period)
    row = connection.execute(
        select(budgets.c.spent_micros, budgets.c.held_micros).where(*where).with_for_update()
    ).one_or_none()
    return (0, 0) if row is None else (row.spent_micros, row.held_micros)


def _hold(connection: Connection, process_id: str, scope: str, period: str, micros: int) -> None:
    connection.execute(
        update(budgets)
        .where(budgets.c.scope == scope, budgets.c.period == period)
        .values(held_micros=budgets.c.held_micros + micros)
    )
    insertion = _insert(connection, budget_holds).values(
        process_id=process_id, scope=scope, period=period, held_micros=micros
    )
    connection.execute(
        insertion.on_conflict_do_update(
            index_elements=["process_id", "scope", "period"],
            set_={"held_micros": budget_holds.c.held_micros + insertion.excluded.held_micros},
        )
    )


def give_back(process_id: str, connection: Connection, returns: Sequence[Return]) -> Sequence[None]:
    """Book what is spent and let go what is not needed."""
    for item in sorted(returns, key=lambda item: item.account.row):
        _locked(connection, *item.account.row)
        _let_go(connection, process_id, item.account, item.unbooked_micros + item.free_micros, item.unbooked_micros)
    return [None] * len(returns)


def _let_go(connection: Connection, process_id: str, account: Account, released: int, cost: int) -> bool:
    """Lower a hold, booking `cost` of it. False if another process took the hold over, and booked it, meanwhile."""
    scope, period = account.row
    own = (budget_holds.c.process_id == process_id, budget_holds.c.scope == scope, budget_holds.c.period == period)
    lowered = update(budget_holds).where(*own).values(held_micros=budget_holds.c.held_micros - released)
    if not connection.execute(lowered).rowcount:
        return False
    connection.execute(
        update(budgets)
        .where(budgets.c.scope == scope, budgets.c.period == period)
        .values(spent_micros=budgets.c.spent_micros + cost, held_micros=budgets.c.held_micros - released)
    )
    return True


def open_accounts(connection: Connection, accounts: Sequence[Account]) -> Sequence[int]:
    """Make the rows of budgets and set what is spent from the ledger itself; gives it.

    A budget that was limited only later thus counts what was spent before, and a wrong sum heals at the next start.
    """
    return [_open_account(connection, account) for account in accounts]


def _open_account(connection: Connection, account: Account) -> int:
    scope, period = account.row
    row = _insert(connection, budgets).values(scope=scope, period=period, spent_micros=0, held_micros=0)
    connection.execute(row.on_conflict_do_nothing())
    # Locked first, summed then: a settlement that commits in between is either in the sum or adds itself after us.
    _locked(connection, scope, period)
    spent = int(connection.execute(select(_spent_of(scope, period))).scalar_one())
    connection.execute(
        update(budgets).where(budgets.c.scope == scope, budgets.c.period == period).values(spent_micros=spent)
    )
    return spent


@dataclass(frozen=True, slots=True)
class Pulse:
    """The beats of all processes. `known` is False if this one had been given up for dead, or is new."""

    beats: Mapping[str, int]
    known: bool


def beat(process_id: str, connection: Connection, beats: Sequence[int]) -> Sequence[Pulse]:
    """Say that this process lives, and hear of the others."""
    seen = {row.process_id: row.beat for row in connection.execute(select(ledger_processes))}
    row = _insert(connection, ledger_processes).values(process_id=process_id, beat=beats[-1])
    connection.execute(row.on_conflict_do_update(index_elements=["process_id"], set_={"beat": row.excluded.beat}))
    return [Pulse(seen | {process_id: beats[-1]}, process_id in seen)] * len(beats)


def bury(connection: Connection, dead: Sequence[tuple[str, int]]) -> Sequence[int]:
    """Take over what dead processes left, each given with its last beat; gives how many open calls each had.

    Their calls in flight are booked with the prompt's estimated cost and marked abandoned; their holds are let go.
    """
    return [_bury(connection, process_id, last_beat) for process_id, last_beat in dead]


def _bury(connection: Connection, process_id: str, last_beat: int) -> int:
    mine = ledger_processes.c.process_id == process_id
    if not connection.execute(delete(ledger_processes).where(mine, ledger_processes.c.beat == last_beat)).rowcount:
        return 0  # it lives, or another process was quicker
    holds = list(
        connection.execute(
            select(budget_holds)
            .where(budget_holds.c.process_id == process_id)
            .order_by(budget_holds.c.scope, budget_holds.c.period)
        )
    )
    for hold in holds:
        _locked(connection, hold.scope, hold.period)
    abandoned = connection.execute(
        update(ledger)
        .where(ledger.c.process_id == process_id, ledger.c.state == "open")
        .values(state="abandoned", outcome="failed", error_code="interrupted")
    ).rowcount
    for hold in holds:
        connection.execute(
            update(budgets)
            .where(budgets.c.scope == hold.scope, budgets.c.period == hold.period)
            .values(
                held_micros=budgets.c.held_micros - hold.held_micros, spent_micros=_spent_of(hold.scope, hold.period)
            )
        )
    connection.execute(delete(budget_holds).where(budget_holds.c.process_id == process_id))
    return abandoned


def _spent_of(scope: str, period: str) -> Any:
    """The sum of a scope's ended rows, as a subquery; the budget's row is locked by the caller."""
    kind, _, rest = scope.partition(":")
    tenant, _, name = rest.partition("/")
    conditions = [ledger.c.tenant_id == unquote(tenant), ledger.c.period == period, ledger.c.state != "open"]
    if (column := _COLUMNS[kind]) is not None:
        conditions.append(column == name)
    return select(func.coalesce(func.sum(ledger.c.cost_micros), 0)).where(*conditions).scalar_subquery()


def _insert(connection: Connection, table: Any) -> "sqlite.Insert | postgresql.Insert":
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
