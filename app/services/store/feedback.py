"""Thumbs and comments: one for each run and user, the later one counts."""

from sqlalchemy import select, update

from app.services.seals import Reader
from app.services.store.database import Database
from app.services.store.page import build, columns
from app.services.store.records import FeedbackRecord, Rating
from app.services.store.tables import feedback, runs
from graphs.errors import Missing

_COLUMNS = columns(feedback, FeedbackRecord)


class Feedback:
    """What users thought of runs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def put(self, run_id: str, tenant_id: str, user_id: str, rating: Rating, comment: str) -> FeedbackRecord:
        """Write or replace this user's opinion of any run of the tenant. Raises Missing.

        An ended run goes back into the outbox with it, so that its trace learns of the opinion.
        """
        row = {
            "run_id": run_id,
            "tenant_id": tenant_id,
            "user_id": user_id,
            "rating": rating,
            "comment": comment,
            "created_at": self._db.clock(),
        }
        row = dict(self._db.seals.seal(feedback, row))
        latest = {name: row[name] for name in ("rating", "comment", "created_at")}
        upsert = (
            self._db.insert(feedback)
            .values(row)
            .on_conflict_do_update(index_elements=["run_id", "user_id"], set_=latest)
        )
        async with self._db.write() as connection:
            run = select(runs.c.run_id).where(runs.c.run_id == run_id, runs.c.tenant_id == tenant_id)
            if (await connection.execute(run)).first() is None:
                raise Missing("no such run")
            await connection.execute(update(runs).where(runs.c.run_id == run_id).values(exported_at=None))
            written = (await connection.execute(upsert.returning(*_COLUMNS))).one()
            return build(self._record(tenant_id), written)

    async def for_run(self, run_id: str, tenant_id: str) -> list[FeedbackRecord]:
        """All opinions of a run, oldest first; empty for another tenant's run."""
        query = select(*_COLUMNS).where(feedback.c.run_id == run_id, feedback.c.tenant_id == tenant_id)
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(feedback.c.created_at, feedback.c.user_id))
            record = self._record(tenant_id)
            return [build(record, row) for row in rows]

    def _record(self, tenant_id: str) -> Reader[FeedbackRecord]:
        return self._db.seals.reader(feedback, FeedbackRecord, tenant_id=tenant_id)
