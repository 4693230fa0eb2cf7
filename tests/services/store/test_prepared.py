"""Prepared statements write what SQLAlchemy would."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, create_engine, insert, select, update

from app.services.store.prepared import Prepared
from app.services.store.tables import metadata, runs
from app.services.store.text import json_text

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
def connection() -> Any:
    engine = create_engine("sqlite://", json_serializer=json_text)
    metadata.create_all(engine)
    with engine.begin() as open_connection:
        yield open_connection
    engine.dispose()


def row(run_id: str, **more: Any) -> dict[str, Any]:
    asked = {"where": {"lang": "e\0n"}, "share": float("nan")}
    texts = dict.fromkeys(("tenant_id", "user_id", "key_id", "mode", "feature", "status", "message"), "a\x00b�")
    return texts | {"run_id": run_id, "asked": asked, "created_at": NOON} | more


def stored(connection: Connection, run_id: str) -> dict[str, Any]:
    found = connection.execute(select(runs).where(runs.c.run_id == run_id)).one()
    return dict(found._mapping) | {"run_id": ""}


def test_a_prepared_insert_cleans_converts_and_fills_in_as_sqlalchemy_does(connection: Connection) -> None:
    connection.execute(insert(runs), [row("theirs")])
    Prepared(insert(runs), connection.dialect).one(connection, row("ours"))

    assert stored(connection, "ours") == stored(connection, "theirs")
    assert stored(connection, "ours")["created_at"] == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_a_prepared_update_keeps_its_conditions_for_each_row_it_is_given(connection: Connection) -> None:
    prepared = Prepared(insert(runs), connection.dialect)
    prepared.many(connection, [row("one"), row("two"), row("three")])
    change = update(runs).where(runs.c.run_id == bindparam("of_run"), runs.c.ended_at.is_(None))
    ended = Prepared(change.returning(runs.c.run_id), connection.dialect)

    given = {"status": "ended", "ended_at": NOON}
    assert [ended.one(connection, given | {"of_run": run_id}) for run_id in ("two", "two", "none")] == [
        ("two",),
        None,
        None,
    ]
    assert {run_id: stored(connection, run_id)["status"] == "ended" for run_id in ("one", "two", "three")} == {
        "one": False,
        "two": True,
        "three": False,
    }


def test_without_rows_nothing_is_said_to_the_database(connection: Connection) -> None:
    said: list[str] = []
    connection.connection.dbapi_connection.set_trace_callback(said.append)  # type: ignore[union-attr]
    Prepared(insert(runs), connection.dialect).many(connection, [])
    assert said == []


def test_a_time_without_a_zone_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="aware"):
        Prepared(insert(runs), connection.dialect).one(connection, row("one", created_at=datetime(2026, 3, 1)))  # noqa: DTZ001


def test_a_row_with_more_than_the_first_had_is_refused_not_cut(connection: Connection) -> None:
    prepared = Prepared(insert(runs), connection.dialect)
    prepared.one(connection, row("one"))
    with pytest.raises(ValueError, match="keys"):
        prepared.one(connection, row("two", answer="would be lost"))
