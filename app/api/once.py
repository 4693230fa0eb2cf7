"""`Idempotency-Key`: a request that is sent again is not performed again.

What it asks for is compared by its meaning, not by its bytes: the boundary of a form differs each time. Only what was
brought about is kept; a refusal frees the key. While the first request is at it, another is told 409 and when to come
back; a chat attaches to the run instead (`begin_once`).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Header
from starlette.responses import Response

from app.records import Principal
from graphs.errors import Conflict, Missing, UpstreamError

if TYPE_CHECKING:
    from app.services.store.repeats import Claim, Repeats
    from app.services.store.store import Store

HOLD_EVERY_S: Final = 10.0
ATTACH_WITHIN_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.5
REPEATED: Final = {"Idempotent-Replayed": "true"}

IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=255, description="Names the same request again, for 24 hours.")
]


class InProgress(Conflict):
    """The first request with this idempotency key is not done yet."""

    code = "idempotency_key_in_use"

    def __init__(self) -> None:
        super().__init__("the first request with this Idempotency-Key is not done yet", retry_after_s=1)


async def once(
    store: "Store",
    who: Principal,
    key: str | None,
    asked: Any,
    perform: Callable[[str | None], Awaitable[Response]],
    kept: Callable[[Response], Response] = lambda response: response,
) -> Response:
    """The answer of `perform`, or the one that was `kept`. `asked` is the route and what it was asked for, as JSON.

    Whoever died at it is followed by who asks next, so `perform` has to bear repetition; it is given what names its
    work then as before. Raises KeyReused, InProgress.
    """
    if key is None:
        return await perform(None)
    claim = await _claimed(store, who, key, asked)
    if claim.answer is not None:
        status, headers, body = claim.answer["status"], claim.answer["headers"], claim.answer["body"]
        return Response(body, status, headers | REPEATED, "application/json")
    if not claim.mine:
        raise InProgress
    async with _at_it(store.repeats, claim):
        response = await perform(claim.ref)
    again = kept(response)
    headers = {name: value for name, value in again.headers.items() if name == "location"}
    body = bytes(again.body).decode()
    await store.repeats.finish(claim, {"status": again.status_code, "headers": headers, "body": body})
    return response


async def begin_once(
    store: "Store", who: Principal, key: str | None, asked: Any, begin: Callable[[str | None], Awaitable[str]]
) -> tuple[str, bool]:
    """The id of the run, and whether an earlier request began it. `begin` is given the id that the run is to have.

    The run's own row says that it was begun, so that whoever dies in between leaves no second one. Raises KeyReused,
    InProgress where no run has appeared for a while, and what `begin` raises.
    """
    if key is None:
        return await begin(None), False
    claim, begun = await _standing(store, who, key, asked)
    if not claim.mine:
        return claim.ref, True
    if not begun:
        async with _at_it(store.repeats, claim):
            await begin(claim.ref)
    await store.repeats.finish(claim)
    return claim.ref, begun


async def _standing(store: "Store", who: Principal, key: str, asked: Any) -> tuple["Claim", bool]:
    """The claim once it is the caller's, or once its run has begun, and whether that has."""
    pause_s, patience_s = FIRST_PAUSE_S, ATTACH_WITHIN_S
    while True:
        claim = await _claimed(store, who, key, asked)
        begun = claim.done or await _has_run(store, who, claim.ref)
        if claim.mine or begun:
            return claim, begun
        if patience_s <= 0:
            raise InProgress
        await asyncio.sleep(pause_s)
        pause_s, patience_s = min(2 * pause_s, LONGEST_PAUSE_S), patience_s - pause_s


async def _claimed(store: "Store", who: Principal, key: str, asked: Any) -> "Claim":
    # In a thread: a batch of 10,000 documents takes a quarter of a second to write out.
    told = await asyncio.to_thread(json.dumps, asked, sort_keys=True, default=str)
    return await store.repeats.claim(who.tenant_id, who.user_id, key, told.encode())


async def _has_run(store: "Store", who: Principal, run_id: str) -> bool:
    try:
        await store.runs.get(run_id, who.tenant_id, who.user_id)
    except Missing:
        return False
    return True


@asynccontextmanager
async def _at_it(repeats: "Repeats", claim: "Claim") -> AsyncIterator[None]:
    """Hold the claim for as long as the block takes; one that raises has brought nothing about."""
    holding = asyncio.create_task(_hold(repeats, claim), name="hold an idempotency key")
    try:
        yield
    except BaseException:
        with suppress(UpstreamError):  # the store is away: the hold ends by itself
            await repeats.release(claim)
        raise
    finally:
        holding.cancel()


async def _hold(repeats: "Repeats", claim: "Claim") -> None:
    while True:
        await asyncio.sleep(HOLD_EVERY_S)
        with suppress(UpstreamError):
            await repeats.hold(claim)
