"""Answers to questions that were asked before in other words, in LanceDB: a table for each tenant.

The nearest stored questions are candidates. One is given only if all around it is the same (system prompt, earlier
turns, passages, parameters, models), its vector is near enough, and `alike` finds the same meaning in both questions.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, Self
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from app.buckets import Bucket
from app.services.gateway.alike import alike, readable
from app.services.gateway.answers import FORM, MAX_ANSWER_BYTES, Answer, Asked, ForgetFailed, packed, unpacked
from app.services.gateway.kept import OPEN, Keeping
from graphs.errors import PilothouseError

log = logging.getLogger("pilothouse.cache")

MAX_ROWS: Final = 5_000  # of a tenant; searching so many without an index takes 7 ms
CANDIDATES: Final = 5
TIDY_EVERY: Final = 64  # writes: each adds a file, and many small files are slow to search
LOOK_S: Final = 1.0  # a look that takes longer is given up: the model may well be faster
HELD_TABLES: Final = 256
# LanceDB raises plain ones for what its files did to it; a timeout is an OSError; an embedder raises ours.
_FAILURES: Final = (RuntimeError, ValueError, OSError, PilothouseError)
OLD_VERSIONS: Final = timedelta(minutes=1)  # kept for readers in other processes that are on them


class Embedder(Protocol):
    """What looking up needs of an embedder: unit vectors; `id` names model and weights."""

    @property
    def id(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Near:
    """A stored answer and the cosine between its question and the one asked."""

    answer: Answer
    cosine: float


class SemanticAnswers:
    """Looks up and keeps answers by what was asked. A folder that cannot be read or written is a miss, not an error."""

    def __init__(
        self,
        database: Any,
        embedder: Embedder,
        *,
        keeping: Keeping = OPEN,
        max_rows: int = MAX_ROWS,
        look_s: float = LOOK_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keeping = keeping
        self._db, self._embedder, self._max_rows, self._look_s, self._now = database, embedder, max_rows, look_s, now
        self._tables: OrderedDict[str, Any] = OrderedDict()
        self._writers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._written = 0

    @classmethod
    async def open(cls, where: Path | Bucket, embedder: Embedder, **given: Any) -> Self:
        """Opening creates a folder if need be; tables are made when first written."""
        # Lazy: importing it costs more than a second; the thread leaves the event loop free meanwhile.
        lancedb = await asyncio.to_thread(import_module, "lancedb")
        # Zero: every look sees what other processes have written.
        options = where.lance_options if isinstance(where, Bucket) else {}
        database = await lancedb.connect_async(
            str(where), read_consistency_interval=timedelta(0), storage_options=options
        )
        return cls(database, embedder, **given)

    async def near(
        self, asked: Asked, *, threshold: float, models: Collection[str], since: float | None
    ) -> Near | None:
        """The nearest answer by one of `models` made after `since` (Unix seconds; None for any age), if one is near."""
        if not readable(asked.question):
            return None
        try:
            async with asyncio.timeout(self._look_s):
                rows = await self._nearest(asked, since)
        except _FAILURES as error:
            self._tables.pop(asked.tenant, None)
            log.warning("similar questions are not looked up", exc_info=error)
            return None
        for row in rows:
            cosine = 1.0 - row["_distance"]
            if cosine < threshold:
                return None
            question, answer = self._opened(asked.tenant, row)
            if answer is not None and answer.model in models and alike(asked.question, question):
                return Near(answer, cosine)
        return None

    async def put(self, asked: Asked, answer: Answer, keep_s: float) -> None:
        """Keep an answer; nothing happens for a question that cannot be compared."""
        data = packed(asked, answer)
        if not readable(asked.question) or len(data) > MAX_ANSWER_BYTES:
            return
        try:
            vector = (await self._embedder.embed([asked.question]))[0]
            async with self._writer(asked.tenant):
                table = await self._table(asked.tenant, make=True)
                await table.add(self._row(asked, answer, data, self._now() + keep_s, vector))
                self._written += 1
                if self._written % TIDY_EVERY == 0:
                    await self._tidy(table)
        except _FAILURES as error:
            self._tables.pop(asked.tenant, None)
            log.warning("an answer was not kept", exc_info=error)

    async def forget(self, tenant: str) -> None:
        """Drop the tenant's tables, files and all. Raises ForgetFailed."""
        async with self._writer(tenant):
            self._tables.pop(tenant, None)
            try:
                for name in await self._tables_of(tenant):
                    await self._db.drop_table(name, ignore_missing=True)
            except (RuntimeError, ValueError, OSError) as error:
                raise ForgetFailed("kept answers could not be dropped; they go when their time is over") from error

    def close(self) -> None:
        self._tables.clear()
        self._db.close()

    async def _tables_of(self, tenant: str) -> list[str]:
        """All of the tenant's, those of other embedders and older forms among them."""
        found: list[str] = []
        page: str | None = None
        while True:
            listed = await self._db.list_tables(page_token=page)
            found += [name for name in listed.tables if name.startswith(_prefix(tenant))]
            page = listed.page_token
            if not page:
                return found

    async def _nearest(self, asked: Asked, since: float | None) -> list[dict[str, Any]]:
        table = await self._table(asked.tenant, make=False)
        if table is None:
            return []
        vector = (await self._embedder.embed([asked.question]))[0]
        # The scope is a hash of ours and the rest are numbers: nothing from outside reaches the filter.
        wanted = f"scope = '{asked.scope}' AND dies_at > {self._now()!r}"
        if since is not None:
            wanted += f" AND made_at >= {since!r}"
        search = table.query().nearest_to(vector).distance_type("cosine").where(wanted)
        rows: list[dict[str, Any]] = await (
            search.select(["key", "question", "answer", "_distance"]).limit(CANDIDATES).to_list()
        )
        return rows

    async def _table(self, tenant: str, *, make: bool) -> Any:
        """The tenant's table; None where there is none and none is to be made."""
        table = self._tables.get(tenant)
        if table is None:
            try:
                table = await self._db.open_table(self._name(tenant))
            except ValueError as error:
                if "was not found" not in str(error):
                    raise
                if not make:
                    return None
                table = await self._db.create_table(self._name(tenant), schema=self._schema(), exist_ok=True)
            self._tables[tenant] = table
            if len(self._tables) > HELD_TABLES:
                self._tables.popitem(last=False)
        return table

    async def _tidy(self, table: Any) -> None:
        """Drop what has died and the oldest beyond the bound, and join the small files."""
        await table.delete(f"dies_at <= {self._now()!r}")
        over = await table.count_rows() - self._max_rows
        if over > 0:
            ages = (await table.query().select(["made_at"]).to_arrow())["made_at"].to_numpy()
            await table.delete(f"made_at <= {float(np.partition(ages, over - 1)[over - 1])!r}")
        await table.optimize(cleanup_older_than=OLD_VERSIONS)

    def _writer(self, tenant: str) -> asyncio.Lock:
        return self._writers.setdefault(tenant, asyncio.Lock())

    def _name(self, tenant: str) -> str:
        """A table for each tenant and embedder: vectors of two embedders cannot be compared."""
        made_by = hashlib.sha256(f"{self._embedder.id}, form {FORM}".encode()).hexdigest()[:8]
        return f"{_prefix(tenant)}{made_by}"

    def _schema(self) -> Any:
        import pyarrow as pa  # Lazy, as lancedb is: 47 MB

        vector = pa.list_(pa.float32(), self._embedder.dimensions)
        columns = {"key": pa.string(), "scope": pa.string(), "question": pa.string(), "answer": pa.binary()}
        times = {"made_at": pa.float64(), "dies_at": pa.float64()}
        return pa.schema([pa.field(name, kind, nullable=False) for name, kind in (columns | times).items()]).append(
            pa.field("vector", vector, nullable=False)
        )

    def _opened(self, tenant: str, row: Mapping[str, Any]) -> tuple[str, Answer | None]:
        """Question and answer of a row; no answer where they do not open."""
        key = row["key"]
        question = self._keeping.opened_text(row["question"], tenant, key, "question")
        data = self._keeping.opened(row["answer"], tenant, key, "answer")
        return question or "", None if data is None or question is None else unpacked(data, key)

    def _row(self, asked: Asked, answer: Answer, data: bytes, dies_at: float, vector: NDArray[np.float32]) -> Any:
        import pyarrow as pa

        row = {
            "key": asked.key,
            "scope": asked.scope,
            "question": self._keeping.shut_text(asked.question, asked.tenant, asked.key, "question"),
            "answer": self._keeping.shut(data, asked.tenant, asked.key, "answer"),
            "made_at": answer.made_at,
            "dies_at": dies_at,
            "vector": vector.tolist(),
        }
        return pa.Table.from_pylist([row], schema=self._schema())


def _prefix(tenant: str) -> str:
    return f"a_{tenant}_"
