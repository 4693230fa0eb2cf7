"""The API as its own document describes it: every route, the JSON bodies it takes, and the least that each of these
may be. What is walked from here covers a new route on the day it comes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.api.served import Served

JSON = {"Content-Type": "application/json"}
Place = tuple[str | int, ...]  # a way into a body: names of fields, 0 for a list's first item
_WITH_PARAMETER = re.compile(r"/(\w+)/\{\w+\}(?:/\{\w+\})?")


@dataclass(frozen=True)
class Shape:
    """A JSON schema, with what its references point to."""

    schema: Mapping[str, Any]
    known: Mapping[str, Any]

    @property
    def opened(self) -> Mapping[str, Any]:
        """References followed; of alternatives the first that is not null."""
        schema = self.schema
        while "$ref" in schema or "anyOf" in schema:
            if "$ref" in schema:
                schema = self.known[schema["$ref"].rpartition("/")[2]]
            else:
                schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
        return schema

    @property
    def properties(self) -> dict[str, "Shape"]:
        return {name: self.of(schema) for name, schema in self.opened.get("properties", {}).items()}

    @property
    def item(self) -> "Shape | None":
        return self.of(self.opened["items"]) if "items" in self.opened else None

    def of(self, schema: Mapping[str, Any]) -> "Shape":
        return Shape(schema, {**self.known, **schema.get("$defs", {})})

    def least(self) -> Any:
        """A value that fits, with nothing in it that may be left out."""
        schema = self.opened
        match schema:
            case {"const": value} | {"enum": [value, *_]}:
                return value
            case {"type": "object"}:
                required = schema.get("required", ())
                return {name: part.least() for name, part in self.properties.items() if name in required}
            case {"type": "array"}:
                return [self.item.least()] if self.item else []
            case {"type": "integer" | "number"}:
                return max(1, schema.get("minimum", 1))
            case {"type": "boolean"}:
                return False
        return "x" * max(1, schema.get("minLength", 1))

    def places(self, at: Place = ()) -> Iterator[tuple[Place, "Shape"]]:
        """Itself and every part of it, at any depth."""
        yield at, self
        parts = {0: self.item} if self.item else self.properties
        for name, part in parts.items():
            yield from part.places((*at, name))

    def having(self, value: Any, place: Place) -> Any:
        """The least value with this one at that place, which may be of a field that there is not."""
        if not place:
            return value
        first, *rest = place
        if isinstance(first, int):
            assert self.item is not None
            return [self.item.having(value, tuple(rest))]
        part = self.properties.get(first, Shape({}, {}))
        return self.least() | {first: part.having(value, tuple(rest))}


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    operation: dict[str, Any]
    schemas: dict[str, Any]

    def at(self, name: str) -> str:
        """Its path with that name for every parameter."""
        return re.sub(r"\{[^}]+\}", quote(name, safe=""), self.path)

    def naming(self, things: Mapping[str, str]) -> str:
        """Its path with a thing for each parameter, by the word before it: `runs` in `/runs/{request_id}`."""
        return _WITH_PARAMETER.sub(lambda found: f"/{found[1]}/{things[found[1]]}", self.path)

    @property
    def shapes(self) -> list[Shape]:
        """Of its JSON bodies, one for each alternative."""
        content = self.operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        whole = Shape(content, self.schemas)
        shapes = [whole.of(each) for each in content["oneOf"]] if "oneOf" in content else [whole] if content else []
        return [shape for shape in shapes if shape.properties]

    @property
    def fields(self) -> list[str]:
        """Of its JSON body."""
        return sorted({name for shape in self.shapes for name in shape.properties})

    @property
    def parameters(self) -> list[str]:
        return [each["name"] for each in self.operation.get("parameters", []) if each["in"] == "query"]

    @property
    def streams(self) -> bool:
        return "text/event-stream" in self.operation["responses"].get("200", {}).get("content", {})

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes_of(server: Served) -> list[Route]:
    with server.client("owner") as owner:
        document = owner.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    found = [
        Route(method.upper(), path, operation, schemas)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(found) > 40
    return found
