"""What routes are handed: the bench, and the caller with the right the route needs."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, Header, Query
from starlette.requests import HTTPConnection

from app.records import Principal, Scope
from graphs.errors import Forbidden

if TYPE_CHECKING:
    from app.workbench import Workbench

MAX_LIMIT: Final = 200  # the store's own; importing that loads SQLAlchemy before the socket is open


async def open_bench(connection: HTTPConnection) -> Any:
    """The workbench; the guard lets nobody in before it is open."""
    return connection.app.state.bench


async def caller(connection: HTTPConnection) -> Principal:
    """The principal that the guard found."""
    principal: Principal | None = connection.scope["principal"]
    assert principal is not None, "a route without a principal is reached: see public.py"
    return principal


def holder(*scopes: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    """The caller, who holds at least one of these scopes or is the owner. Raises Forbidden."""

    async def check(principal: Annotated[Principal, Depends(caller)]) -> Principal:
        if not any(principal.may(scope) for scope in scopes):
            raise Forbidden(f"this credential lacks the scope {' or '.join(scopes)}")
        return principal

    return check


async def page_limit(limit: Annotated[int, Query(description="Items in a page; brought into 1 to 200.")] = 50) -> int:
    return min(max(limit, 1), MAX_LIMIT)


if TYPE_CHECKING:
    Bench = Annotated[Workbench, Depends(open_bench)]
else:
    # FastAPI reads this at run time, and importing the workbench takes seconds that the socket does not wait for.
    Bench = Annotated[Any, Depends(open_bench)]

Caller = Annotated[Principal, Depends(caller)]
Chatter = Annotated[Principal, Depends(holder("chat"))]
RunReader = Annotated[Principal, Depends(holder("chat", "runs"))]
DocumentReader = Annotated[Principal, Depends(holder("documents", "chat"))]
DocumentWriter = Annotated[Principal, Depends(holder("documents"))]
Approver = Annotated[Principal, Depends(holder("approvals"))]
Owner = Annotated[Principal, Depends(holder("owner"))]

Limit = Annotated[int, Depends(page_limit)]
Cursor = Annotated[str | None, Query(max_length=512, description="`nextCursor` of the page before.")]
EventNumber = Annotated[int, Header(alias="Last-Event-ID", ge=0, le=2**31 - 1)]
