"""API keys. A secret is shown once; the table holds its SHA-256.

Neither salt nor stretching: our secrets are 256 random bits, an owner's own must be long.
"""

import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Final

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.ids import new_id
from app.records import SCOPES, Actor
from app.services.audit import OPERATOR, audited
from app.services.store.database import Database
from app.services.store.page import build, columns
from app.services.store.records import KeyRecord
from app.services.store.tables import keys
from app.sight import MAX_MEMBER_GROUPS, checked_groups
from graphs.errors import Conflict, Invalid, Missing

OWNER_TENANT: Final = "default"
OWNER_USER: Final = "owner"
OWNER_KEY_CHARS: Final = 32
_KEY = re.compile(r"ph_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")
_KEY_COLUMNS = columns(keys, KeyRecord)


class OwnerKeyDiffers(Conflict):
    """Other processes of the installation have another owner key."""

    code = "owner_key_differs"

    def __init__(self) -> None:
        super().__init__(
            "this database belongs to another owner key than this process has; set PILOTHOUSE_OWNER_KEY to the one of"
            " the other processes, or make this one the owner's with `pilothouse keys replace-owner`"
        )


class Keys:
    """Who may come in."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(
        self,
        tenant_id: str,
        user_id: str,
        scopes: Iterable[str],
        name: str,
        expires_at: datetime | None = None,
        *,
        groups: Iterable[str] = (),
        by: Actor = OPERATOR,
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, `ph_<key id>_<43 characters>`, which nothing can show again.

        Raises Invalid for an unknown or no scope, for an empty or reserved (leading underscore) tenant or user, and for
        groups with odd names.
        """
        _check_name(tenant_id, "tenantId")
        _check_name(user_id, "userId")
        granted = frozenset(scopes)
        if not granted or not granted <= set(SCOPES):
            raise Invalid(f"scopes must be some of {', '.join(SCOPES)}", field="scopes")
        key_id = new_id()
        secret = f"ph_{key_id}_{secrets.token_urlsafe(32)}"
        ordered = [scope for scope in SCOPES if scope in granted]
        row = {
            "key_id": key_id,
            "tenant_id": tenant_id,
            "user_id": user_id,
            "name": name,
            "scopes": ordered,
            "groups": checked_groups(groups, MAX_MEMBER_GROUPS, "groups"),
            "secret_sha256": _digest(secret),
            "created_at": self._db.clock(),
            "expires_at": expires_at,
        }
        async with audited(self._db) as journal:
            created = (await journal.connection.execute(keys.insert().values(row).returning(*_KEY_COLUMNS))).one()
            await journal.note("key.created", by, tenant_id, key_id, {"scopes": " ".join(ordered)})
        return build(KeyRecord, created), secret

    async def import_owner(self, secret: str, *, replaces: bool = True) -> KeyRecord:
        """Make `secret` the owner's key and retire the one imported before; the same secret again changes nothing.

        Raises Invalid if it is shorter than 32 characters, OwnerKeyDiffers if it `replaces` none and there is another.
        """
        if len(secret) < OWNER_KEY_CHARS:
            raise Invalid(f"the owner key must have {OWNER_KEY_CHARS} characters or more", field="ownerKey")
        key_id, now = _imported_id(secret), self._db.clock()
        row = {
            "key_id": key_id,
            "tenant_id": OWNER_TENANT,
            "user_id": OWNER_USER,
            "name": "owner",
            "scopes": ("owner",),
            "secret_sha256": _digest(secret),
            "imported": True,
            "created_at": now,
        }
        # Who sets the owner key is the authority on it: a key set again after a rotation is valid again.
        upsert = (
            self._db.insert(keys)
            .values(row)
            .on_conflict_do_update(index_elements=["key_id"], set_={"revoked_at": None})
        )
        retired = keys.c.imported.is_(True) & (keys.c.key_id != key_id) & keys.c.revoked_at.is_(None)
        live = select(keys.c.key_id).where(keys.c.key_id == key_id, keys.c.revoked_at.is_(None))
        async with audited(self._db) as journal:
            known = (await journal.connection.execute(live)).first() is not None
            if replaces:
                await journal.connection.execute(update(keys).where(retired).values(revoked_at=now))
            try:
                imported = (await journal.connection.execute(upsert.returning(*_KEY_COLUMNS))).one()
            except IntegrityError as error:
                raise OwnerKeyDiffers from error
            if not known:
                await journal.note("owner_key.imported", OPERATOR, OWNER_TENANT, key_id)
        return build(KeyRecord, imported)

    async def has_owner(self) -> bool:
        """Whether an owner key has been imported that opens doors."""
        async with self._db.read() as connection:
            query = select(keys.c.key_id).where(keys.c.imported.is_(True), keys.c.revoked_at.is_(None))
            return (await connection.execute(query)).first() is not None

    async def verify(self, secret: str) -> KeyRecord | None:
        """The live key with this secret; None for a wrong, revoked or expired one, in the same time."""
        named = _KEY.fullmatch(secret)
        candidates = {_imported_id(secret)} | ({named.group(1)} if named else set())
        query = select(*_KEY_COLUMNS, keys.c.secret_sha256).where(keys.c.key_id.in_(candidates), self._live())
        async with self._db.read() as connection:
            rows = (await connection.execute(query)).all()
        digest = _digest(secret)
        for *values, stored in rows:
            if hmac.compare_digest(stored, digest):
                return KeyRecord(*values)
        return None

    async def active(self, key_id: str) -> bool:
        """Whether the key still opens doors: neither revoked nor expired."""
        return await self.find(key_id) is not None

    async def find(self, key_id: str) -> KeyRecord | None:
        """The key as it is now; None for one that opens no doors."""
        async with self._db.read() as connection:
            found = await connection.execute(select(*_KEY_COLUMNS).where(keys.c.key_id == key_id, self._live()))
        row = found.first()
        return None if row is None else build(KeyRecord, row)

    async def regroup(self, key_id: str, groups: Iterable[str], *, by: Actor = OPERATOR) -> KeyRecord:
        """Put the key into these groups and no others. Raises Missing, Invalid."""
        now_in = checked_groups(groups, MAX_MEMBER_GROUPS, "groups")
        change = update(keys).where(keys.c.key_id == key_id).values(groups=now_in).returning(*_KEY_COLUMNS)
        async with audited(self._db) as journal:
            row = (await journal.connection.execute(change)).first()
            if row is None:
                raise Missing("no such key")
            await journal.note("key.regrouped", by, row.tenant_id, key_id, {"groups": len(now_in)})
        return build(KeyRecord, row)

    async def revoke(self, key_id: str, tenant_id: str | None, *, by: Actor = OPERATOR) -> None:
        """Close the key for good; again is fine. None as tenant is the owner's reach. Raises Missing."""
        mine = keys.c.key_id == key_id
        if tenant_id is not None:
            mine &= keys.c.tenant_id == tenant_id
        close = update(keys).where(mine, keys.c.revoked_at.is_(None)).values(revoked_at=self._db.clock())
        async with audited(self._db) as journal:
            found = (await journal.connection.execute(select(keys.c.tenant_id).where(mine))).first()
            if found is None:
                raise Missing("no such key")
            if (await journal.connection.execute(close)).rowcount:
                await journal.note("key.revoked", by, found.tenant_id, key_id)

    def _live(self) -> ColumnElement[bool]:
        return keys.c.revoked_at.is_(None) & or_(keys.c.expires_at.is_(None), keys.c.expires_at > self._db.clock())

    # Last: from here on `list` is this method.
    async def list(self, tenant_id: str | None) -> list[KeyRecord]:
        """All keys of a tenant, newest first, revoked ones included; None lists every tenant's (the owner's view)."""
        query = select(*_KEY_COLUMNS).order_by(keys.c.created_at.desc(), keys.c.key_id)
        if tenant_id is not None:
            query = query.where(keys.c.tenant_id == tenant_id)
        async with self._db.read() as connection:
            return [build(KeyRecord, row) for row in await connection.execute(query)]


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _imported_id(secret: str) -> str:
    """The id of an imported key follows from its secret (any text), by another hash than the one that proves it."""
    return "owner-" + sha256(b"pilothouse owner key id\0" + secret.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _check_name(name: str, field: str) -> None:
    if not 1 <= len(name) <= 128 or name.startswith("_") or not name.isprintable():
        raise Invalid(f"{field} must be 1 to 128 printable characters and not start with an underscore", field=field)
