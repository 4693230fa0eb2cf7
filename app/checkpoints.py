"""Where the agent's checkpoints live: with the store if that is a PostgreSQL, else in a SQLite file of their own, so
that they never wait for the store's writer.

Each run is a thread of its own and is dropped when it ends; `sweep` drops what a crash or an erasure left.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg import AsyncConnection, AsyncCursor, InterfaceError, OperationalError
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy import make_url

from app.envelopes import Envelope, Envelopes, Sealer, bare, bare_config, of_channel
from app.kept_checkpoints import POSTGRES_KEPT, SQLITE_KEPT, Kept
from app.services.store.database import StoreUnavailable
from app.services.store.store import Store
from app.services.vault import Vault
from graphs import types as graph_types
from graphs.agent import state as agent_state

POOL_SIZE: Final = 4  # connections of one process; a checkpoint holds one for milliseconds
WAIT_S: Final = 30.0
# An index that is made concurrently waits for every transaction of the database, a dump of hours too. Ours are made
# with their empty tables.
_MIGRATIONS: Final = [step.replace("INDEX CONCURRENTLY", "INDEX") for step in AsyncPostgresSaver.MIGRATIONS]
_SHORT: Final = (str, int, float, bool)
_SHORT_HELD: Final = (
    "SELECT thread_id, checkpoint_ns, checkpoint_id, checkpoint -> 'channel_values' AS short, "
    "checkpoint -> 'channel_versions' AS versions FROM checkpoints "
    "WHERE jsonb_typeof(checkpoint -> 'channel_values') = 'object' AND checkpoint -> 'channel_values' <> '{}'"
)
_SHORT_GONE: Final = (
    "UPDATE checkpoints SET checkpoint = jsonb_set(checkpoint, '{channel_values}', '{}') "
    "WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s"
)
_SETUP_LOCK: Final = 0x50494C4F54 + 1  # beside the migrations' own

_Pool = AsyncConnectionPool[AsyncConnection[DictRow]]


class Checkpoints(Protocol):
    """A saver that also tells which threads it holds."""

    async def threads(self) -> frozenset[str]: ...

    async def reseal(self) -> int:
        """Bring all that it holds under the current key; how many values that were. Raises VaultError."""
        ...

    async def stale(self) -> int:
        """How many values are not sealed with the current key."""
        ...

    async def adelete_thread(self, thread_id: str) -> None: ...

    async def scrub(self) -> None:
        """Have the files hold nothing of what was deleted, as far as readers allow."""
        ...


def thread_id(tenant_id: str, run_id: str) -> str:
    """The thread of a run. It is ours, never a caller's string."""
    return f"{tenant_id}/{run_id}"


class _Sealing(BaseCheckpointSaver[Any]):
    """What both savers do alike. Their other methods work on envelopes, which they pass on unopened."""

    sealer: Sealer

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """Itself. What may be read back is the sealer's list, which no graph's schema makes longer."""
        return self

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await super().aput_writes(config, self.sealer.writes(config, writes, task_id), task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await super().aget_tuple(config)
        return None if found is None else self.sealer.opened(found)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        async for found in super().alist(config, filter=filter, before=before, limit=limit):
            yield self.sealer.opened(found)


class SqliteCheckpoints(_Sealing, AsyncSqliteSaver):
    """In a file, over one connection."""

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        whole = self.sealer.whole(config, checkpoint)
        return await super().aput(bare_config(config), whole, bare(metadata), new_versions)

    async def threads(self) -> frozenset[str]:
        query = "SELECT thread_id FROM checkpoints UNION SELECT thread_id FROM writes"
        async with self.lock, self.conn.execute(query) as rows:
            return frozenset([row[0] async for row in rows])

    async def reseal(self) -> int:
        return sum([await self._reseal(kept) for kept in SQLITE_KEPT])

    async def stale(self) -> int:
        mark, count = self.sealer.mark, 0
        for kept in SQLITE_KEPT:
            async with self.lock, self.conn.execute(kept.count, (len(mark), mark.encode())) as rows:
                count += sum([row[0] async for row in rows])
        return count

    async def scrub(self) -> None:
        async with self.lock, self.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)") as told:
            await told.fetchall()

    async def _reseal(self, kept: Kept) -> int:
        """Row by row, each written back only where it is still what was read."""
        mark, done = self.sealer.mark, 0
        async with self.lock, self.conn.execute(kept.select, (len(mark), mark.encode())) as found:
            rows = [tuple(row) async for row in found]
        for *ids, kind, data in rows:
            anew = self.sealer.anew(Envelope(kind, data), ids[0], kept.place(ids))
            async with self.lock:
                await self.conn.execute(kept.update, (anew.type, anew.data, *ids, data))
                await self.conn.commit()
            done += 1
        return done


class PostgresCheckpoints(_Sealing, AsyncPostgresSaver):
    """In tables beside the store's, over a pool that replaces connections which have broken. A database that does not
    answer raises StoreUnavailable."""

    def __init__(self, pool: _Pool, sealer: Sealer) -> None:
        super().__init__(pool, serde=Envelopes())
        self._pool, self.sealer = pool, sealer

    async def setup(self) -> None:
        """Make or upgrade the tables, once, however many processes start at the same time."""
        async with _translated(), self._pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SETUP_LOCK,))
            alone = AsyncPostgresSaver(connection)
            alone.MIGRATIONS = _MIGRATIONS
            await alone.setup()

    async def threads(self) -> frozenset[str]:
        query = " UNION ".join(
            f"SELECT thread_id FROM {table}"  # noqa: S608 - the names are below
            for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
        )
        async with self._cursor() as cursor:
            await cursor.execute(query)
            return frozenset([row["thread_id"] async for row in cursor])

    async def reseal(self) -> int:
        return await self._reseal_short() + sum([await self._reseal(kept) for kept in POSTGRES_KEPT])

    async def stale(self) -> int:
        mark, count = self.sealer.mark, 0
        async with self._cursor() as cursor:
            for kept in POSTGRES_KEPT:
                await cursor.execute(kept.count.encode(), (len(mark), mark.encode()))
                count += sum([row["count"] async for row in cursor])
            await cursor.execute(_SHORT_HELD)
            return count + len(await cursor.fetchall())

    async def scrub(self) -> None:
        """VACUUM does it in its own time, and what is there until then is sealed."""

    async def _reseal(self, kept: Kept) -> int:
        """Row by row, each written back only where it is still what was read."""
        mark = self.sealer.mark
        async with self._cursor() as cursor:
            await cursor.execute(kept.select.encode(), (len(mark), mark.encode()))
            rows = [tuple(row.values()) for row in await cursor.fetchall()]
            for *ids, kind, data in rows:
                anew = self.sealer.anew(Envelope(kind, data), ids[0], kept.place(ids))
                await cursor.execute(kept.update.encode(), (anew.type, anew.data, *ids, data))
        return len(rows)

    async def _reseal_short(self) -> int:
        """Give short values from before, which lie beside their checkpoints, an envelope each."""
        async with self._cursor() as cursor:
            await cursor.execute(_SHORT_HELD)
            for row in await cursor.fetchall():
                thread, ns, versions = row["thread_id"], row["checkpoint_ns"], row["versions"]
                for channel, value in row["short"].items():
                    version = str(versions[channel])
                    sealed = self.sealer.put(value, thread, of_channel(ns, channel, version))
                    blob = (thread, ns, channel, version, sealed.type, sealed.data)
                    await cursor.execute(self.UPSERT_CHECKPOINT_BLOBS_SQL, blob)
                await cursor.execute(_SHORT_GONE, (thread, ns, row["checkpoint_id"]))
        return 0

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """All values go into envelopes; upstream keeps short ones beside the checkpoint, in the clear."""
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        # A short value of a checkpoint from before has no envelope yet, new or not.
        short = {name: versions[name] for name, value in values.items() if value is None or isinstance(value, _SHORT)}
        sealed = cast(Checkpoint, {**checkpoint, "channel_values": self.sealer.values(config, checkpoint)})
        return await super().aput(bare_config(config), sealed, bare(metadata), {**short, **new_versions})

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        """One for each caller: upstream's lock has all callers take turns, whatever the pool could give them.

        `pipeline` asks for all statements or none.
        """
        async with _translated(), self._pool.connection() as connection:
            if not pipeline:
                async with connection.cursor(binary=True) as cursor:
                    yield cursor
                return
            async with connection.pipeline(), connection.transaction(), connection.cursor(binary=True) as cursor:
                yield cursor


def checkpointer(
    store_url: str, file: Path, vault: Vault | None = None
) -> "AbstractAsyncContextManager[PostgresCheckpoints | SqliteCheckpoints]":
    """An open saver: in the PostgreSQL of `store_url`, else in `file`. Raises StoreUnavailable.

    Without a vault contents lie there in the clear.

    Only the types that the agent's state is made of are read back; the rest stays data.
    """
    url = make_url(store_url)
    if url.get_backend_name() == "postgresql":
        return _postgres(url.get_dialect()().create_connect_args(url)[1], Sealer(_serializer(), vault))
    return _sqlite(file, Sealer(_serializer(), vault))


@asynccontextmanager
async def _sqlite(file: Path, sealer: Sealer) -> AsyncIterator[SqliteCheckpoints]:
    async with SqliteCheckpoints.from_conn_string(str(file)) as saver:
        assert isinstance(saver, SqliteCheckpoints)
        saver.serde, saver.sealer = Envelopes(), sealer
        await saver.conn.execute("PRAGMA journal_mode=WAL")
        await saver.conn.execute("PRAGMA secure_delete=ON")
        await saver.setup()
        yield saver


@asynccontextmanager
async def _postgres(connect: Mapping[str, Any], sealer: Sealer) -> AsyncIterator[PostgresCheckpoints]:
    pool: _Pool = AsyncConnectionPool(
        kwargs={**connect, "autocommit": True, "row_factory": dict_row},
        min_size=0,
        max_size=POOL_SIZE,
        timeout=WAIT_S,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
    async with pool:
        saver = PostgresCheckpoints(pool, sealer)
        await saver.setup()
        yield saver


async def sweep(checkpoints: Checkpoints, store: Store) -> None:
    """Drop the threads of runs that have ended or are gone."""
    # The threads first: a run has its row before its first checkpoint.
    held = {thread.rpartition("/")[2]: thread for thread in await checkpoints.threads()}
    for run_id in held.keys() - await store.runs.unended():
        await checkpoints.adelete_thread(held[run_id])


async def drop_threads(checkpoints: Checkpoints, tenant_id: str, run_ids: Iterable[str]) -> int:
    """How many of these runs had one."""
    mine = await checkpoints.threads() & {thread_id(tenant_id, run_id) for run_id in run_ids}
    for thread in mine:
        await checkpoints.adelete_thread(thread)
    return len(mine)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise StoreUnavailable("the database does not answer", retry_after_s=1) from error


def _serializer() -> JsonPlusSerializer:
    return JsonPlusSerializer(allowed_msgpack_modules=_state_types())


def _state_types() -> list[tuple[str, str]]:
    return [
        (module.__name__, name)
        for module in (graph_types, agent_state)
        for name, value in vars(module).items()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    ]
