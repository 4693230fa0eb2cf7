"""Where the agent's checkpoints live: with the store if that is a PostgreSQL, else in a SQLite file of their own, so
that they never wait for the store's writer.

Each run is a thread of its own and is dropped when it ends; `sweep` drops what a crash or an erasure left.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg import AsyncConnection, AsyncCursor, InterfaceError, OperationalError
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from sqlalchemy import make_url

from app.services.store.database import StoreUnavailable
from app.services.store.store import Store
from app.services.store.text import clean
from graphs import types as graph_types
from graphs.agent import state as agent_state

POOL_SIZE: Final = 4  # connections of one process; a checkpoint holds one for milliseconds
WAIT_S: Final = 30.0
# An index that is made concurrently waits for every transaction of the database, a dump of hours too. Ours are made
# with their empty tables.
_MIGRATIONS: Final = [step.replace("INDEX CONCURRENTLY", "INDEX") for step in AsyncPostgresSaver.MIGRATIONS]
_SETUP_LOCK: Final = 0x50494C4F54 + 1  # beside the migrations' own

_Pool = AsyncConnectionPool[AsyncConnection[DictRow]]


class Checkpoints(Protocol):
    """A saver that also tells which threads it holds."""

    async def threads(self) -> frozenset[str]: ...

    async def adelete_thread(self, thread_id: str) -> None: ...


def thread_id(tenant_id: str, run_id: str) -> str:
    """The thread of a run. It is ours, never a caller's string."""
    return f"{tenant_id}/{run_id}"


class SqliteCheckpoints(AsyncSqliteSaver):
    """In a file, over one connection."""

    async def threads(self) -> frozenset[str]:
        query = "SELECT thread_id FROM checkpoints UNION SELECT thread_id FROM writes"
        async with self.lock, self.conn.execute(query) as rows:
            return frozenset([row[0] async for row in rows])


class PostgresCheckpoints(AsyncPostgresSaver):
    """In tables beside the store's, over a pool that replaces connections which have broken. A database that does not
    answer raises StoreUnavailable."""

    def __init__(self, pool: _Pool, serde: JsonPlusSerializer) -> None:
        super().__init__(pool, serde=serde)
        self._pool = pool

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

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Texts that stand alone in the state go into a JSON column, which takes no NUL and no lone surrogate."""
        values = {
            name: clean(value) if isinstance(value, str) else value
            for name, value in checkpoint["channel_values"].items()
        }
        return await super().aput(config, {**checkpoint, "channel_values": values}, metadata, new_versions)

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


def checkpointer(store_url: str, file: Path) -> "AbstractAsyncContextManager[PostgresCheckpoints | SqliteCheckpoints]":
    """An open saver: in the PostgreSQL of `store_url`, else in `file`. Raises StoreUnavailable.

    Only the types that the agent's state is made of are read back; the rest stays data.
    """
    url = make_url(store_url)
    if url.get_backend_name() == "postgresql":
        return _postgres(url.get_dialect()().create_connect_args(url)[1])
    return _sqlite(file)


@asynccontextmanager
async def _sqlite(file: Path) -> AsyncIterator[SqliteCheckpoints]:
    async with SqliteCheckpoints.from_conn_string(str(file)) as saver:
        assert isinstance(saver, SqliteCheckpoints)
        saver.serde = _serializer()
        await saver.conn.execute("PRAGMA journal_mode=WAL")
        await saver.conn.execute("PRAGMA secure_delete=ON")
        await saver.setup()
        yield saver


@asynccontextmanager
async def _postgres(connect: Mapping[str, Any]) -> AsyncIterator[PostgresCheckpoints]:
    pool: _Pool = AsyncConnectionPool(
        kwargs={**connect, "autocommit": True, "row_factory": dict_row},
        min_size=0,
        max_size=POOL_SIZE,
        timeout=WAIT_S,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
    async with pool:
        saver = PostgresCheckpoints(pool, _serializer())
        await saver.setup()
        yield saver


async def sweep(checkpoints: Checkpoints, store: Store) -> None:
    """Drop the threads of runs that have ended or are gone."""
    # The threads first: a run has its row before its first checkpoint.
    held = {thread.rpartition("/")[2]: thread for thread in await checkpoints.threads()}
    for run_id in held.keys() - await store.runs.unended():
        await checkpoints.adelete_thread(held[run_id])


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
