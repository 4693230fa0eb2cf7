"""The schemas of tools' arguments, ours and those that others bring: which are used, and what fits them.

A schema from elsewhere is trusted neither with our time nor with our network: a pattern is matched in time linear in
the text, and what a `$ref` names is looked for in the schema itself and nowhere else.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from pydantic_core import ValidationError as NoMatch
from referencing import Registry
from referencing.exceptions import Unresolvable

from graphs.errors import Invalid
from graphs.types import ToolSpec

MAX_SCHEMA_CHARS: Final = 64_000
MAX_DEPTH: Final = 32
SHOWN_PROBLEMS: Final = 3
_COMBINED: Final = frozenset({"allOf", "anyOf", "oneOf", "$ref", "if"})
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


@lru_cache(maxsize=1_024)
def _pattern(pattern: str) -> SchemaValidator:
    """Raises PatternError for one that needs more than linear time: look-around, back-references."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern))


def _matches(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    if not isinstance(value, str):
        return
    try:
        _pattern(pattern).validate_python(value)
    except NoMatch:
        yield ValidationError(f"does not match {pattern!r}")


_Validator: Final = extend(Draft202012Validator, {"pattern": _matches})
_NOWHERE: Final[Registry[Any]] = Registry()


def usable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, as one of an object. Raises Invalid for one too large or too deep, or that cannot be checked here."""
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA_CHARS:
        raise Invalid(f"the schema of the arguments has more than {MAX_SCHEMA_CHARS} characters")
    if schema.get("type", "object") != "object":
        raise Invalid("the schema of the arguments is not one of an object")
    whole = {**json.loads(text), "type": "object"}
    try:
        _Validator.check_schema(whole)
    except SchemaError as error:
        raise Invalid(f"the schema of the arguments is no JSON schema: {error.message[:200]}") from error
    _check_parts(whole, MAX_DEPTH)
    return whole


def _check_parts(part: Any, depth: int) -> None:
    if depth == 0:
        raise Invalid(f"the schema of the arguments is deeper than {MAX_DEPTH} levels")
    if isinstance(part, list):
        for item in part:
            _check_parts(item, depth - 1)
    if not isinstance(part, dict):
        return
    if isinstance(part.get("patternProperties"), dict):
        raise Invalid("the schema of the arguments names properties by patterns")
    reference = part.get("$ref", part.get("$dynamicRef", "#"))
    if isinstance(reference, str) and not reference.startswith("#"):
        raise Invalid("the schema of the arguments refers to something outside it")
    if isinstance(pattern := part.get("pattern"), str):
        try:
            _pattern(pattern)
        except PatternError as error:
            raise Invalid("the schema of the arguments has a pattern that cannot be matched in linear time") from error
    for item in part.values():
        _check_parts(item, depth - 1)


def argument_problems(spec: ToolSpec, arguments: Mapping[str, Any]) -> list[str]:
    """What is wrong with `arguments`, in words for a model; empty when they fit. Unknown keys never fit."""
    parameters = spec.parameters
    closed = "additionalProperties" if _COMBINED.isdisjoint(parameters) else "unevaluatedProperties"
    validator = _Validator({closed: False, **parameters}, registry=_NOWHERE)
    try:
        errors = sorted(validator.iter_errors(dict(arguments)), key=lambda error: list(map(str, error.absolute_path)))
    except (Unresolvable, RecursionError):
        return ["they cannot be checked against the tool's schema"]
    found = [_in_words(error) for error in errors[:SHOWN_PROBLEMS]]
    if not found:
        found = [f"{name}: not valid text" for name, value in arguments.items() if not _storable(value)]
    return found


def _in_words(error: ValidationError) -> str:
    where = "/".join(str(part) for part in error.absolute_path)
    # jsonschema quotes the whole value before the reason; of a long one the reason is enough.
    what = error.message if len(error.message) <= 200 else f"fails {error.validator}: {error.validator_value}"
    return f"{where}: {what}" if where else what


def _storable(value: Any) -> bool:
    """Whether every text in it fits a database: no lone surrogate, no NUL."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is None
    if isinstance(value, Mapping):
        return all(_storable(key) and _storable(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_storable(item) for item in value)
    return True
