"""Where the agent's checkpoints live: a SQLite file of their own, so that they never wait for the store's writer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from graphs import types as graph_types
from graphs.agent import state as agent_state


@asynccontextmanager
async def checkpointer(path: Path) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """An open saver. Only the types that the agent's state is made of are read back; the rest stays data."""
    serde = JsonPlusSerializer(allowed_msgpack_modules=_state_types())
    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        saver.serde = serde
        await saver.conn.execute("PRAGMA journal_mode=WAL")
        await saver.setup()
        yield saver


def _state_types() -> list[tuple[str, str]]:
    return [
        (module.__name__, name)
        for module in (graph_types, agent_state)
        for name, value in vars(module).items()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    ]
