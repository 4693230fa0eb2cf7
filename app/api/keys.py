"""API keys: made, listed and revoked by the owner."""

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Query, Response

from app.api.body import StrictRoute
from app.api.deps import Bench, Owner
from app.api.once import IdempotencyKey, once
from app.api.schemas import KeyGroupsIn, KeyIn
from app.api.views import KeyOut, ListOut, NewKeyOut
from graphs.errors import Invalid

router = APIRouter(prefix="/api/ai/keys", tags=["keys"], route_class=StrictRoute)


@router.post("", summary="Make a key", status_code=201, response_model=NewKeyOut)
async def create_key(
    wanted: Annotated[KeyIn, Body()], bench: Bench, principal: Owner, idempotency_key: IdempotencyKey = None
) -> Any:
    """The answer carries the key once; only its hash is kept. The same `Idempotency-Key` makes no second key: it
    answers 200 and the first one without its secret. Where that was lost, revoke it and make another."""
    if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
        raise Invalid("expiresAt is in the past", field="expiresAt")

    async def make(_: str | None) -> Response:
        record, secret = await bench.store.keys.create(
            wanted.tenant_id,
            wanted.user_id,
            wanted.scopes,
            wanted.name,
            wanted.expires_at,
            groups=wanted.groups,
            by=principal.actor,
        )
        made = NewKeyOut(key=secret, **dict(KeyOut.of(record)))
        return Response(made.model_dump_json(by_alias=True), 201, media_type="application/json")

    return await once(bench.store, principal, idempotency_key, ["keys", wanted.model_dump()], make, _without_secret)


def _without_secret(made: Response) -> Response:
    shown = {name: value for name, value in orjson.loads(made.body).items() if name != "key"}
    return Response(orjson.dumps(shown), media_type="application/json")


@router.get("", summary="List keys", response_model=ListOut[KeyOut])
async def list_keys(
    bench: Bench, principal: Owner, tenant: Annotated[str | None, Query(alias="tenantId", max_length=128)] = None
) -> ListOut[KeyOut]:
    """All tenants' or one's, newest first, revoked ones included; never their secrets."""
    return ListOut(items=[KeyOut.of(record) for record in await bench.store.keys.list(tenant)])


@router.patch("/{key_id}", summary="Change a key's groups", response_model=KeyOut)
async def regroup_key(key_id: str, wanted: Annotated[KeyGroupsIn, Body()], bench: Bench, principal: Owner) -> KeyOut:
    """The groups that it is in from now on, and no others; another process hears of it within a second."""
    record = await bench.store.keys.regroup(key_id, wanted.groups, by=principal.actor)
    bench.access.forget(key_id)
    return KeyOut.of(record)


@router.delete("/{key_id}", summary="Revoke a key", status_code=204, response_class=Response)
async def revoke_key(key_id: str, bench: Bench, principal: Owner) -> None:
    """For good; sessions that were opened with it end too."""
    await bench.store.keys.revoke(key_id, None, by=principal.actor)
    bench.access.forget(key_id)
