import json
import time
from typing import Any

import pytest

from app.services.guardrails.shape import JsonShape
from graphs.errors import Invalid

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "friend": {"$ref": "#/$defs/friend"}, "pattern": {"type": "integer"}},
    "required": ["name"],
    "$defs": {"friend": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


def doubling(steps: int) -> dict[str, Any]:
    """Each reference leads to two more: 2 to the power of `steps` checks."""
    levels = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(steps)}
    return {"$ref": "#/$defs/l0", "$defs": levels | {f"l{steps}": {"type": "integer"}}}


def test_faults_say_what_is_wrong_and_where() -> None:
    shape = JsonShape(PERSON)
    assert shape.faults(json.dumps({"name": "Ann", "friend": {"name": "Bob"}})) == ()
    assert shape.faults("Ann") == ("it is not JSON",)
    (fault,) = shape.faults(json.dumps({"name": "Ann", "friend": {}}))
    assert fault == "friend: 'name' is a required property"
    assert len(shape.faults("[1]")) == 1


def test_a_property_may_be_called_like_a_keyword() -> None:
    assert JsonShape(PERSON).faults('{"name": "Ann", "pattern": "x"}') == ("pattern: 'x' is not of type 'integer'",)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a+)+$"},
        {"properties": {"x": {"patternProperties": {"(a+)+$": {}}}}},
        {"$ref": "http://evil.example/schema"},
        {"$ref": "#/$defs/nothing"},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"properties": {"x": {"$ref": "#"}}},
        {"type": "no such type"},
        {"type": 7},
        doubling(40),
    ],
    ids=str,
)
def test_v08_a_schema_that_could_hold_up_the_process_is_refused(schema: dict[str, Any]) -> None:
    started = time.process_time()
    with pytest.raises(Invalid) as refused:
        JsonShape(schema)
    assert refused.value.field == "responseSchema"
    assert time.process_time() - started < 2


def test_an_answer_nested_beyond_measure_is_no_json() -> None:
    assert JsonShape({}).faults("[" * 100_000) == ("it is not JSON",)
