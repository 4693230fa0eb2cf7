"""What was used and what it cost, by any dimension; and whether a provider's own bill says the same."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from app.api.deps import Bench, Caller, Owner
from app.api.usage_views import ReconciliationOut, UsageOut
from graphs.errors import Invalid, TooLarge

router = APIRouter(prefix="/api/ai/usage", tags=["usage"])

MAX_ROWS: Final = 10_000
_BY: Final = "One or two of tenant, user, feature, model, provider, day, run, key, outcome, separated by a comma."
_CSV: Final[dict[str, Any]] = {"text/csv": {"schema": {"type": "string"}}}


@router.get(
    "",
    summary="Report usage and cost",
    response_model=UsageOut,
    response_model_exclude_unset=True,
    responses={200: {"content": _CSV}},
)
async def usage(
    bench: Bench,
    principal: Caller,
    group_by: Annotated[str, Query(alias="groupBy", max_length=64, description=_BY)] = "day",
    since: Annotated[
        datetime | None,
        Query(alias="from", description="The first day, or a time in it, UTC. The month's first unless given."),
    ] = None,
    until: Annotated[datetime | None, Query(alias="to", description="The last day, included; today.")] = None,
    tenant: Annotated[str | None, Query(alias="tenantId", max_length=128, description="For the owner.")] = None,
    limit: Annotated[int | None, Query(ge=1, le=MAX_ROWS, description="Groups, the dearest first.")] = None,
    format: Annotated[Literal["json", "csv"], Query()] = "json",
) -> UsageOut | Response:
    """The caller's own calls; with the scope `runs` its whole tenant's, for the owner all tenants'.

    A call in flight is not in it, its cost is not known yet.
    """
    from app.usage import report, usage_csv  # SQLAlchemy, which the socket does not wait for

    last = _day(until) or bench.clock().date()
    first = _day(since) or last.replace(day=1)
    wanted = limit or (MAX_ROWS if format == "csv" else 200)
    found = await report(bench, principal, _parts(group_by), since=first, until=last, tenant_id=tenant, limit=wanted)
    if format == "json":
        return UsageOut.of(found, first, last)
    if limit is None and found.groups > len(found.rows):
        raise TooLarge(f"{found.groups} groups are more than a file's {MAX_ROWS}: ask for fewer days", field="from")
    name = f"usage-{'-'.join(found.group_by)}-{first}-{last}.csv"
    return StreamingResponse(
        usage_csv(found), media_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@router.post(
    "/reconcile",
    summary="Compare a provider's bill",
    response_model=ReconciliationOut,
    openapi_extra={"requestBody": {"required": True, "content": _CSV}},
)
async def reconcile_usage(
    request: Request,
    bench: Bench,
    principal: Owner,
    provider: Annotated[str | None, Query(max_length=128, description="Only this provider's calls of ours.")] = None,
) -> ReconciliationOut:
    """Line by line with the ledger, by day and model, to the cent. The body is the CSV file as it was exported."""
    from app.usage import reconcile  # as above

    body = await request.body()
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"the export is not UTF-8 at byte {error.start}", field="export") from error
    return ReconciliationOut.of(await reconcile(bench, text, provider))


def _parts(text: str) -> Any:
    """`model,day` as names; whether they are dimensions is seen where they are used."""
    return tuple(part.strip() for part in text.split(","))


def _day(moment: datetime | None) -> date | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()
