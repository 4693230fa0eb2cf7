"""A JSON schema that a caller asked an answer to satisfy, made harmless to check.

References inside the schema are put in their places, so that neither a circle of them nor a tower that doubles at each
step can hold up the process; regular expressions are refused, because Python's can run for ever on a crafted text.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError

from graphs.errors import Invalid

MAX_NODES: Final = 2_000  # a schema's objects and lists, once its references are in their places
MAX_DEPTH: Final = 32
MAX_ANSWER_CHARS: Final = 200_000
SHOWN_FAULTS: Final = 5
FIELD: Final = "responseSchema"

_REFUSED: Final = frozenset({"pattern", "patternProperties", "$dynamicRef", "$recursiveRef"})


class JsonShape:
    """Implements `graphs.context.Shape`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises Invalid for what is no schema, or none that is checked here."""
        self._schema = schema
        self._validator = Draft202012Validator(_Inlined(schema).whole())
        try:
            Draft202012Validator.check_schema(self._validator.schema)
        except SchemaError as error:
            raise Invalid(f"this is no JSON schema: {error.message[:200]}", field=FIELD) from error

    @property
    def schema(self) -> Mapping[str, Any]:
        return self._schema

    def faults(self, answer: str) -> tuple[str, ...]:
        """What is wrong with it, in words for a model; empty where it is JSON that fits."""
        if len(answer) > MAX_ANSWER_CHARS:
            return (f"it has more than {MAX_ANSWER_CHARS} characters",)
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError):
            return ("it is not JSON",)
        found = []
        for error in self._validator.iter_errors(value):
            found.append(_worded(error))
            if len(found) == SHOWN_FAULTS:
                break
        return tuple(found)


class _Inlined:
    """A schema with what its references name in their place."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root, self._nodes = schema, 0

    def whole(self) -> dict[str, Any]:
        root = {key: value for key, value in self._root.items() if key not in ("$defs", "definitions", "$schema")}
        found: dict[str, Any] = self._node(root, 0)
        return found

    def _node(self, node: Any, depth: int) -> Any:
        if not isinstance(node, dict | list):
            return node
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise Invalid(f"a schema may have {MAX_NODES} parts, {MAX_DEPTH} deep, and no circle", field=FIELD)
        if isinstance(node, list):
            return [self._node(each, depth + 1) for each in node]
        if "$ref" in node:
            named = self._node(self._named(node["$ref"]), depth + 1)
            rest = self._node({key: value for key, value in node.items() if key != "$ref"}, depth + 1)
            return {"allOf": [named, rest]} if rest else named
        return {key: self._value(key, value, depth + 1) for key, value in node.items()}

    def _value(self, key: str, value: Any, depth: int) -> Any:
        if key in ("enum", "const", "default", "examples"):
            return value
        if key == "properties" and isinstance(value, dict):
            self._nodes += 1
            return {name: self._node(each, depth + 1) for name, each in value.items()}
        if key in _REFUSED:
            raise Invalid(f"{key} is not checked here, and so not taken", field=FIELD)
        return self._node(value, depth)

    def _named(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise Invalid("a reference must be one into the schema itself, such as #/$defs/name", field=FIELD)
        found: Any = self._root
        for step in reference[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or step not in found:
                raise Invalid(f"the schema has no {reference[:100]}", field=FIELD)
            found = found[step]
        return found


def _worded(error: ValidationError) -> str:
    where = "/".join(str(part) for part in error.absolute_path)
    # jsonschema quotes the whole value before the reason; of a long one the reason is enough.
    what = error.message if len(error.message) <= 200 else f"fails {error.validator}"
    return f"{where}: {what}" if where else what
