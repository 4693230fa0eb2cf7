"""The ledger's statements. Each function runs inside a transaction that the Committer holds.

A budget's row says what is booked as spent and what all processes hold of it; a process's own row in `budget_holds`
says how much of that is its own, and what of it calls have used up since (`unbooked`). A settlement thus writes to
nothing that another process writes to. What decides a race is in the statements: a hold is granted on a locked row
where `spent + held + more <= limit`, a call is settled by an UPDATE that says `state = 'open'`. Processes state what
they hold, not by how much it changed, so that saying it twice changes nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

from app.services.quota.link import Link
from app.services.quota.tables import ledger

ScopeKind = Literal["tenant", "user", "feature", "key"]
_COLUMNS: Final = {"user": "user_id", "feature": "feature", "key": "key_id"}


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose budget: a tenant's own, or that of a user, feature or key inside it."""

    kind: ScopeKind
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


# Calls

RECORDED: Final = tuple(column.name for column in ledger.columns)
SETTLED: Final = (
    *("state", "outcome", "error_code", "model_version", "cost_micros", "latency_ms", "first_token_ms"),
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "estimated"),
)
_VALUES: Final = f"({', '.join(RECORDED)}) VALUES ({', '.join('?' * len(RECORDED))})"
_RECORD: Final = f"INSERT INTO ledger {_VALUES} ON CONFLICT (call_id) DO NOTHING"
_CHANGES: Final = ", ".join(f"{name} = ?" for name in SETTLED)
_END: Final = f"UPDATE ledger SET {_CHANGES} WHERE call_id = ? AND state = "  # noqa: S608
_SETTLE: Final = _END + "'open'"
_SETTLE_LATE: Final = _END + "'abandoned'"
_COST: Final = SETTLED.index("cost_micros")


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a call ends: its new values in the order of SETTLED, the accounts that pay, and who held them for it."""

    call_id: str
    values: tuple[Any, ...]
    accounts: tuple[Account, ...]
    process_id: str

    @property
    def cost_micros(self) -> int:
        return int(self.values[_COST])


Settled = Literal["settled", "late", "missing"]
"""`late`: others had taken its process for dead, and its holds with it. `missing`: the call was never recorded."""


class NotAllOpen(Exception):
    """Some calls of a batch were not open. The Committer settles each alone then."""


def record(link: Link, rows: Sequence[tuple[Any, ...]]) -> Sequence[None]:
    """Write down calls before they are made; values in the order of RECORDED."""
    link.write_many(_RECORD, rows)
    return [None] * len(rows)


def settle(link: Link, settlements: Sequence[Settlement]) -> Sequence[Settled]:
    """End calls. One that had ended before stays as it was and counts as settled."""
    ended = link.write_many(_SETTLE, [(*settlement.values, settlement.call_id) for settlement in settlements])
    if ended == len(settlements):
        _use_up(link, settlements)
        return ["settled"] * ended
    if len(settlements) > 1:
        raise NotAllOpen
    return [_settle_ended(link, settlements[0])]


def _use_up(link: Link, settlements: Sequence[Settlement]) -> None:
    """Note costs against the holds that they were taken from."""
    costs: defaultdict[tuple[str, tuple[str, str]], int] = defaultdict(int)
    for settlement in settlements:
        if cost := settlement.cost_micros:
            for account in settlement.accounts:
                costs[settlement.process_id, account.row] += cost
    for (process_id, row), cost in sorted(costs.items()):
        noted = link.write(
            "UPDATE budget_holds SET unbooked_micros = unbooked_micros + ? "
            "WHERE process_id = ? AND scope = ? AND period = ?",
            *(cost, process_id, *row),
        )
        if not noted:  # the call was recorded after its process had been taken for dead
            _book(link, row, cost)


def _book(link: Link, row: tuple[str, str], cost: int) -> None:
    link.write("UPDATE budgets SET spent_micros = spent_micros + ? WHERE scope = ? AND period = ?", cost, *row)


def _settle_ended(link: Link, settlement: Settlement) -> Settled:
    found = link.rows(
        f"SELECT state, cost_micros FROM ledger WHERE call_id = ?{link.locking}",  # noqa: S608
        settlement.call_id,
    )
    if not found:
        return "missing"
    ((state, booked),) = found
    if state != "abandoned":
        return "settled"
    link.write(_SETTLE_LATE, *settlement.values, settlement.call_id)
    for row in sorted(account.row for account in settlement.accounts):
        _book(link, row, settlement.cost_micros - booked)
    return "late"


# Budgets


@dataclass(frozen=True, slots=True)
class Ask:
    """What a process has to say of its hold on an account, and what more it wants.

    It goes on holding `keep`: for calls in flight, and for those to come. It wants `wanted` more, or what there is down
    to `least`; in its place `block`, while plenty is left. All are micros.
    """

    account: Account
    process_id: str
    keep: int
    limit: int
    wanted: int = 0
    least: int = 0
    block: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """How much more an Ask got, and how the budget stands after it."""

    granted: int
    spent: int
    held: int


def ask(link: Link, asks: Sequence[Ask]) -> Sequence[Grant | None]:
    """Book what was used up, and change holds, never beyond `spent + held <= limit`. None for a process that was taken
    for dead: it holds nothing."""
    grants: list[Grant | None] = [None] * len(asks)
    # In one order everywhere, so that no two processes wait for each other's rows.
    for place in sorted(range(len(asks)), key=lambda place: asks[place].account.row):
        grants[place] = _ask(link, asks[place])
    return grants


def _ask(link: Link, ask: Ask) -> Grant | None:
    row = ask.account.row
    budget, own = _locked(link, row), _own(link, ask)
    if budget is None or own is None:
        if not _is_alive(link, ask.process_id):
            return None
        _open(link, ask)
        budget, own = _locked(link, row), own or (0, 0)
        assert budget is not None  # just made
    spent, held = budget[0] + own[1], budget[1] - own[0] + ask.keep
    left = ask.limit - spent - held
    granted = 0
    if ask.wanted:
        if left - ask.block >= ask.limit // 4 and ask.block > ask.wanted:
            granted = ask.block
        elif left >= max(ask.least, 1):
            granted = min(ask.wanted, left)
    held += granted
    if (spent, held) != budget:
        link.write(
            "UPDATE budgets SET spent_micros = ?, held_micros = ? WHERE scope = ? AND period = ?", spent, held, *row
        )
    if (ask.keep + granted, 0) != own:
        link.write(
            "UPDATE budget_holds SET held_micros = ?, unbooked_micros = 0 "
            "WHERE process_id = ? AND scope = ? AND period = ?",
            *(ask.keep + granted, ask.process_id, *row),
        )
    return Grant(granted, spent, held)


def _locked(link: Link, row: tuple[str, str]) -> tuple[int, int] | None:
    """Spent and held of a budget, which nobody else changes until this transaction ends."""
    found = link.rows(
        f"SELECT spent_micros, held_micros FROM budgets WHERE scope = ? AND period = ?{link.locking}",  # noqa: S608
        *row,
    )
    return (found[0][0], found[0][1]) if found else None


def _own(link: Link, ask: Ask) -> tuple[int, int] | None:
    found = link.rows(
        "SELECT held_micros, unbooked_micros FROM budget_holds WHERE process_id = ? AND scope = ? AND period = ?",
        *(ask.process_id, *ask.account.row),
    )
    return (found[0][0], found[0][1]) if found else None


def _is_alive(link: Link, process_id: str) -> bool:
    statement = f"SELECT 1 FROM ledger_processes WHERE process_id = ?{link.keeping}"  # noqa: S608
    return bool(link.rows(statement, process_id))


def _open(link: Link, ask: Ask) -> None:
    """Make the rows of a budget and of a process's hold on it. A budget that is limited only now starts with what the
    ledger says was spent of it before."""
    made = link.write(
        "INSERT INTO budgets (scope, period, spent_micros, held_micros) VALUES (?, ?, 0, 0) "
        "ON CONFLICT (scope, period) DO NOTHING",
        *ask.account.row,
    )
    if made:
        _book(link, ask.account.row, _spent_before(link, ask.account))
    link.write(
        "INSERT INTO budget_holds (process_id, scope, period, held_micros, unbooked_micros) VALUES (?, ?, ?, 0, 0) "
        "ON CONFLICT (process_id, scope, period) DO NOTHING",
        *(ask.process_id, *ask.account.row),
    )


def _spent_before(link: Link, account: Account) -> int:
    scope = account.scope
    statement = (
        "SELECT COALESCE(SUM(cost_micros), 0) FROM ledger WHERE tenant_id = ? AND period = ? AND state <> 'open'"
    )
    values = [scope.tenant_id, account.period]
    if scope.kind != "tenant":
        statement += f" AND {_COLUMNS[scope.kind]} = ?"
        values.append(scope.name)
    return int(link.rows(statement, *values)[0][0])


# Processes


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, numbered from 1 in a process's life."""

    process_id: str
    number: int


def beat(link: Link, beats: Sequence[Beat]) -> Sequence[dict[str, int] | None]:
    """Note signs of life; gives the last beats of all processes, None to one that was taken for dead.

    Whoever left something in the books without ever having given a sign is noted too, to be found dead in due time.
    """
    return [_beat(link, beat) for beat in beats]


def _beat(link: Link, beat: Beat) -> dict[str, int] | None:
    if beat.number == 1:
        link.write(
            "INSERT INTO ledger_processes (process_id, beat) VALUES (?, 1) ON CONFLICT (process_id) DO NOTHING",
            beat.process_id,
        )
    elif not link.write("UPDATE ledger_processes SET beat = ? WHERE process_id = ?", beat.number, beat.process_id):
        return None
    link.write(
        "INSERT INTO ledger_processes (process_id, beat) "
        "SELECT DISTINCT process_id, 0 FROM ledger WHERE state = 'open' "
        "AND process_id NOT IN (SELECT process_id FROM ledger_processes) ON CONFLICT (process_id) DO NOTHING"
    )
    return dict(link.rows("SELECT process_id, beat FROM ledger_processes"))


@dataclass(frozen=True, slots=True)
class Death:
    """A process that gave no sign of life after its `last_beat`; None for one that says so itself."""

    process_id: str
    last_beat: int | None = None


def bury(link: Link, deaths: Sequence[Death]) -> Sequence[int | None]:
    """Take over what dead processes left; gives how many calls each had open, None for one that is not dead.

    Their calls in flight keep their cost, which is the prompt's estimated one, and are marked abandoned; their holds
    are let go. A budget pays for them out of what they held of it: one that is younger than a call was never asked
    whether it can pay for it.
    """
    return [_bury(link, death) for death in deaths]


def _bury(link: Link, death: Death) -> int | None:
    where, last = ("", ()) if death.last_beat is None else (" AND beat = ?", (death.last_beat,))
    if not link.write(f"DELETE FROM ledger_processes WHERE process_id = ?{where}", death.process_id, *last):  # noqa: S608
        return None  # it lives, or another process was quicker
    abandoned = link.rows(
        "UPDATE ledger SET state = 'abandoned', outcome = 'failed', error_code = 'interrupted' "
        "WHERE process_id = ? AND state = 'open' RETURNING tenant_id, user_id, feature, key_id, period, cost_micros",
        death.process_id,
    )
    holds = link.rows(
        "SELECT scope, period, held_micros, unbooked_micros FROM budget_holds WHERE process_id = ? "
        "ORDER BY scope, period",
        death.process_id,
    )
    # Sorted here too: a database may order texts by its locale, and locks are taken in one order everywhere.
    for scope, period, held, unbooked in sorted(holds):
        prompts = sum(call[5] for call in abandoned if call[4] == period and _pays(scope, *call[:4]))
        cost = unbooked + min(prompts, max(held - unbooked, 0))
        link.write(
            "UPDATE budgets SET spent_micros = spent_micros + ?, held_micros = held_micros - ? "
            "WHERE scope = ? AND period = ?",
            *(cost, held, scope, period),
        )
    link.write("DELETE FROM budget_holds WHERE process_id = ?", death.process_id)
    return len(abandoned)


def _pays(row: str, tenant_id: str, user_id: str, feature: str, key_id: str) -> bool:
    """Whether the scope of a budget's row bounds a call of that tenant, user, feature and key."""
    kind, _, rest = row.partition(":")
    tenant, _, name = rest.partition("/")
    names = {"tenant": "", "user": user_id, "feature": feature, "key": key_id}
    return unquote(tenant) == tenant_id and name == names[kind]
