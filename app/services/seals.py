"""Which columns of a table are sealed, said where the table is, and rows on their way in and out.

A column that holds contents has `info=Form(...).info`, and its table says in `info` what its values are bound to. An
empty value holds nothing and stays as it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Table

from app.services.vault import Vault, VaultKeyMissing, is_sealed

T = TypeVar("T")
BOUND_TO: Final = "bound_to"
_UNHELD: Final = re.compile("[\x00\ud800-\udfff]")
_FORM: Final = "sealed"


@dataclass(frozen=True, slots=True)
class Form:
    """How a column's values become bytes and come back; `binary` for one that holds bytes itself."""

    dump: Callable[[Any], bytes]
    load: Callable[[bytes], Any]
    binary: bool = False

    @property
    def info(self) -> dict[str, Any]:
        """For the column."""
        return {_FORM: self}


def bound_to(*columns: str) -> dict[str, Any]:
    """For the table's info: what of its row a value is bound to, beside the tenant."""
    return {BOUND_TO: columns}


class Sealing:
    """The sealed columns of one table."""

    def __init__(self, table: Table) -> None:
        self.forms: dict[str, Form] = {column.name: column.info[_FORM] for column in table.c if _FORM in column.info}
        self.bound: tuple[str, ...] = table.info.get(BOUND_TO, ())
        self._table = table.name

    def seal(self, vault: Vault, row: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its contents sealed. `told` are bound values that the row does not have."""
        sealed, ids = dict(row), _ids(self.bound, row, told)
        tenant_id = _of("tenant_id", row, told)
        for name, form in self.forms.items():
            if (value := row.get(name)) is not None and (dumped := form.dump(value)) not in _EMPTY:
                seal = vault.seal if form.binary else vault.seal_text
                sealed[name] = seal(dumped, tenant_id, (self._table, name, *ids))
        return sealed

    def open(self, vault: Vault, row: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
        """The row as it was before. Raises VaultError."""
        opened, ids = dict(row), None
        for name, form in self.forms.items():
            if not (value := row.get(name)):
                continue
            if ids is None:
                ids, tenant_id = _ids(self.bound, row, told), _of("tenant_id", row, told)
            place = (self._table, name, *ids)
            if not is_sealed(value):
                vault.refuse_plain(place)
            elif form.binary:
                opened[name] = form.load(vault.open(value, tenant_id, place))
            else:
                opened[name] = form.load(vault.open_text(value, tenant_id, place))
        return opened


_EMPTY: Final = (b"", b"{}", b"[]", b'""', b"null")


class Seals:
    """Rows of all tables. Without a vault they stay as they are, unless the database is one whose contents are sealed:
    then `shut` has contents neither written nor read."""

    def __init__(self, vault: Vault | None = None) -> None:
        self.vault = vault
        self.shut = False
        self._tables: dict[Table, Sealing] = {}

    def of(self, table: Table) -> Sealing:
        if (found := self._tables.get(table)) is None:
            found = self._tables[table] = Sealing(table)
        return found

    def seal(self, table: Table, row: Mapping[str, Any], **told: Any) -> Mapping[str, Any]:
        """Raises VaultKeyMissing where it is shut."""
        vault = self._vault(table)
        return row if vault is None else self.of(table).seal(vault, row, told)

    def open(self, table: Table, row: Mapping[str, Any], **told: Any) -> Mapping[str, Any]:
        """Raises VaultError."""
        vault = self._vault(table)
        return row if vault is None else self.of(table).open(vault, row, told)

    def _vault(self, table: Table) -> Vault | None:
        if self.shut:
            raise VaultKeyMissing(f"contents of {table.name} are sealed, and this process was given no key")
        return self.vault

    def reader(self, table: Table, record: Callable[..., T], **told: Any) -> "Reader[T]":
        return Reader(self, table, record, told)


class Reader(Generic[T]):
    """Makes records of rows with what is sealed in them opened. `told` are bound values that the rows do not have."""

    def __init__(self, seals: Seals, table: Table, record: Callable[..., T], told: Mapping[str, Any]) -> None:
        self._seals, self._table, self._record, self._told = seals, table, record, told

    def __call__(self, **row: Any) -> T:
        """Raises VaultError."""
        return self._record(**self._seals.open(self._table, row, **self._told))


def _ids(bound: tuple[str, ...], row: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    return [_of(name, row, told) for name in bound]


def _of(name: str, row: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """As databases give it back: they hold neither NUL nor a lone surrogate."""
    value = str(told[name] if name in told else row[name])
    if value.isascii() and "\0" not in value:  # nearly every one, at a tenth of the pattern's cost
        return value
    return _UNHELD.sub("\ufffd", value)
