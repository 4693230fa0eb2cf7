"""The jobs' tables as SQLAlchemy Core sees them; the store's migrations create them, a test compares the two.

What a job was given and came to is sealed. Ids, states, times, numbers and groups are not: they are searched by, and so
is an item's name, which is a document's id or a line's.
"""

import json
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.services.seals import Form, bound_to


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, which becomes a question mark, or a number beyond 64 bits
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


_TEXT = Form(lambda value: value.encode("utf-8", "replace"), bytes.decode).info
_JSON = Form(_dumped, json.loads).info
_BYTES = Form(bytes, bytes, binary=True).info

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_OPEN = text("ended_us IS NULL")

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("groups", JSON, nullable=False, server_default="[]"),
    Column("kind", Text, nullable=False),
    Column("payload", JSON, nullable=False, info=_JSON),
    Column("priority", Integer, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text, nullable=False),  # of what was asked, to know the same from another request
    Column("callback_url", Text, info=_TEXT),
    Column("status", Text, nullable=False),  # queued | running | succeeded | failed | cancelled
    Column("stage", Text, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("result", JSON(none_as_null=True), info=_JSON),
    Column("error", JSON(none_as_null=True), info=_JSON),
    Column("attempt", Integer, nullable=False),  # how often it was handed to the engine again, for whatever reason
    Column("failures", Integer, nullable=False),  # of those, how often because something it needs was away
    Column("fence", Integer, nullable=False),  # one more each time a worker takes it, or it is taken from one
    Column("due_us", BigInteger, nullable=False),  # when somebody is to look whether the engine still has it
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("ended_us", BigInteger),
    UniqueConstraint("tenant_id", "user_id", "idempotency_key"),
    Index(None, "tenant_id", "created_us"),
    Index(None, "ended_us"),
    Index("ix_jobs_open", "due_us", sqlite_where=_OPEN, postgresql_where=_OPEN),
    info=bound_to("job_id"),
)

job_items = Table(
    "job_items",
    metadata,
    Column("job_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("tenant_id", Text, nullable=False, server_default=""),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),  # waiting | begun | succeeded | failed
    Column("ref", Text),
    Column("input", JSON, nullable=False, info=_JSON),
    Column("allow_groups", JSON(none_as_null=True)),  # those of the input, as long as it was not brought about
    Column("content", LargeBinary, info=_BYTES),
    Column("result", JSON(none_as_null=True), info=_JSON),
    Column("error", JSON(none_as_null=True), info=_JSON),
    PrimaryKeyConstraint("job_id", "number"),
    info=bound_to("job_id", "number"),
)

# A process that performs jobs and is alive. `beat` counts and is no time: who looks compares it with the last look by
# a clock of its own, so that no two clocks have to agree.
job_executors = Table(
    "job_executors",
    metadata,
    Column("executor_id", Text, primary_key=True),
    Column("beat", BigInteger, nullable=False),
)

# What a job has for itself, such as a collection. A lease is worth what the job's fence is: it ends with the job, or
# when another worker takes the job on, and no clock has to agree with another.
job_leases = Table(
    "job_leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("fence", Integer, nullable=False),
)
