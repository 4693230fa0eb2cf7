"""Jobs and items between their values and their rows."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from app.records import Principal
from app.services.database import from_us
from app.services.jobs.ports import CallbackStatus, ItemState, JobFailure, JobProgress, JobRequest, JobState
from app.services.jobs.tables import job_items, jobs
from app.services.seals import Seals
from graphs.errors import PilothouseError


def job_state(seals: Seals, row: Row[Any], callback: CallbackStatus | None = None) -> JobState:
    """Raises VaultError."""
    held = seals.open(jobs, row._asdict())
    return JobState(
        job_id=row.job_id,
        principal=owner(row),
        kind=row.kind,
        payload=held["payload"],
        priority=row.priority,
        status=row.status,
        progress=JobProgress(row.done, row.total, row.stage),
        result=held["result"],
        error=failure_of(held["error"]),
        attempt=row.attempt,
        callback_url=held["callback_url"],
        created_at=from_us(row.created_us),
        started_at=None if row.started_us is None else from_us(row.started_us),
        ended_at=None if row.ended_us is None else from_us(row.ended_us),
        callback=callback,
    )


def owner(row: Row[Any]) -> Principal:
    """Who asked for the job, as they were then."""
    return Principal(row.tenant_id, row.user_id, frozenset(row.scopes), row.key_id, frozenset(row.groups))


def item_state(seals: Seals, row: Mapping[str, Any]) -> ItemState:
    """Raises VaultError."""
    held = seals.open(job_items, row)
    return ItemState(
        number=row["number"],
        name=row["name"],
        status=row["status"],
        ref=row["ref"],
        input=held["input"],
        content=held["content"],
        result=held["result"],
        error=failure_of(held["error"]),
        allow_groups=tuple(row["allow_groups"] or ()),
    )


def job_row(request: JobRequest, job_id: str, now_us: int) -> dict[str, Any]:
    who = request.principal
    return {
        "job_id": job_id,
        "tenant_id": who.tenant_id,
        "user_id": who.user_id,
        "key_id": who.key_id,
        "scopes": sorted(who.scopes),
        "groups": sorted(who.groups),
        "kind": request.kind,
        "payload": dict(request.payload),
        "priority": request.priority,
        "idempotency_key": request.idempotency_key,
        "fingerprint": fingerprint(request),
        "callback_url": request.callback_url,
        "status": "queued",
        "stage": "",
        "done": 0,
        "total": len(request.items),
        "attempt": 0,
        "failures": 0,
        "fence": 0,
        "due_us": now_us,
        "created_us": now_us,
    }


def item_rows(request: JobRequest, job_id: str) -> list[dict[str, Any]]:
    return [
        {
            "job_id": job_id,
            "number": number,
            "tenant_id": request.principal.tenant_id,
            "name": item.name,
            "status": "waiting",
            "input": dict(item.input),
            "allow_groups": item.input.get("allowGroups"),
            "content": item.content,
        }
        for number, item in enumerate(request.items, 1)
    ]


def fingerprint(request: JobRequest) -> str:
    """A digest of what was asked; contents go in by their own digests."""
    digest = hashlib.sha256()
    told = [request.kind, dict(request.payload), request.priority, request.callback_url]
    digest.update(json.dumps(told, sort_keys=True).encode())
    for item in request.items:
        content = "" if item.content is None else hashlib.sha256(item.content).hexdigest()
        digest.update(json.dumps([item.name, dict(item.input), content], sort_keys=True).encode())
    return digest.hexdigest()


def failure(error: PilothouseError) -> JobFailure:
    return JobFailure(error.kind, error.code, error.message)


def failure_row(error: JobFailure | None) -> dict[str, str] | None:
    return None if error is None else asdict(error)


def failure_of(row: Mapping[str, str] | None) -> JobFailure | None:
    return None if row is None else JobFailure(**row)
