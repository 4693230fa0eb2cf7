"""`GET /v1/models`: every name that a call may give, as far as this caller may use it.

One document for both wires: each reads the fields that it knows.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from app.api.v1.door import Asked, Whole
from app.services.gateway.gateway import ModelGateway
from graphs.errors import Missing

PATH: Final = "/v1/models"


class Models:
    """Lists models, routes and graphs; one of them by its name."""

    def __init__(self, gateway: ModelGateway, graphs: Sequence[str]) -> None:
        self._gateway, self._graphs = gateway, tuple(graphs)

    async def __call__(self, asked: Asked) -> Whole:
        allowed = self._gateway.recovery.desk.allowed(asked.payer)
        listed = {entry["id"]: entry for entry in self._entries(allowed)}
        if asked.path == PATH:
            names = list(listed)
            ends = {"first_id": names[0], "last_id": names[-1]}
            return Whole(orjson.dumps({"object": "list", "data": list(listed.values()), "has_more": False, **ends}))
        name = asked.path.removeprefix(PATH + "/")
        if name not in listed:
            raise Missing(f"there is no model {name[:128]!r}", field="model")
        return Whole(orjson.dumps(listed[name]))

    def _entries(self, allowed: frozenset[str] | None) -> list[dict[str, Any]]:
        router = self._gateway.router
        found = [
            _entry(name, target.provider_name)
            for name, target in router.targets.items()
            if allowed is None or name in allowed
        ]
        found += [
            _entry(name, "route")
            for name in router.routes
            if allowed is None or any(target.name in allowed for target in router.models_of(name))
        ]
        return found + [_entry(name, "pilothouse") for name in self._graphs]


def _entry(name: str, owner: str) -> dict[str, Any]:
    openai = {"id": name, "object": "model", "created": 0, "owned_by": owner}
    return openai | {"type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
