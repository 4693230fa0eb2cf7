"""Kill switches: what the owner has switched off, for every process."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from app.api.body import StrictRoute
from app.api.deps import Bench, Owner
from app.api.schemas import Id, SwitchIn
from app.api.views import ListOut, SwitchOut
from graphs.errors import Missing

router = APIRouter(prefix="/api/ai/switches", tags=["switches"], route_class=StrictRoute)

KINDS = ("tenant", "key", "model")


@router.get("", summary="List what is switched off", response_model=ListOut[SwitchOut])
async def list_switches(bench: Bench, principal: Owner) -> ListOut[SwitchOut]:
    """Oldest first, all of them."""
    return ListOut(items=[SwitchOut.of(switch) for switch in await bench.watch.switches.list()])


# A model's name may hold slashes, so the name is the rest of the path.
@router.get("/{kind}/{name:path}", summary="Is it switched off", response_model=SwitchOut)
async def read_switch(kind: str, name: Id, bench: Bench, principal: Owner) -> SwitchOut:
    """404 where it is not."""
    for switch in await bench.watch.switches.list():
        if (switch.kind, switch.name) == (kind, name):
            return SwitchOut.of(switch)
    raise Missing("this is not switched off")


@router.put("/{kind}/{name:path}", summary="Switch off", response_model=SwitchOut)
async def switch_off(
    kind: str, name: Id, wanted: Annotated[SwitchIn, Body()], bench: Bench, principal: Owner
) -> SwitchOut:
    """New calls are refused at once; what runs in any process stops within two seconds. Keys are named by their id.

    The reason is told to those who are refused.
    """
    await _check_known(bench, kind, name)
    return SwitchOut.of(await bench.watch.switches.turn_off(kind, name, wanted.reason, principal.actor))


@router.delete("/{kind}/{name:path}", summary="Switch on", status_code=204, response_class=Response)
async def switch_on(kind: str, name: Id, bench: Bench, principal: Owner) -> None:
    """Runs that waited go on when they are decided; what was stopped stays so."""
    await bench.watch.switches.turn_on(kind, name, principal.actor)


async def _check_known(bench: Any, kind: str, name: str) -> None:
    """A switch for a name that nobody has would look like one that works. Tenants exist by their keys or tokens alone,
    so any name may be one."""
    if kind not in KINDS:
        raise Missing(f"there are switches for {', '.join(KINDS)}")
    if kind == "model" and name not in bench.gateway.router.targets:
        raise Missing("there is no such model")
    if kind == "key" and not (name.isprintable() and await bench.store.keys.active(name)):
        raise Missing("there is no such key")
