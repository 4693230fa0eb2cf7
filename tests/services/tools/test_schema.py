"""What fits a tool's schema, which schemas are used, and that neither can be made to cost anything."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.tools.schema import MAX_DEPTH, argument_problems, usable
from app.services.tools.tool import ToolCall, ToolOutput
from app.services.tools.toolbox import ScopedToolbox
from app.telemetry.spans import RunTrace
from graphs.errors import Invalid
from graphs.types import ToolProposal, ToolSpec

# Each kind of value: its schema, values that fit, and values of no kind that fits it.
KINDS: dict[str, tuple[dict[str, Any], st.SearchStrategy[Any], st.SearchStrategy[Any]]] = {
    "text": ({"type": "string", "maxLength": 9}, st.text("ab", max_size=9), st.text("ab", min_size=10, max_size=20)),
    "count": ({"type": "integer", "minimum": 1}, st.integers(1, 99), st.integers(max_value=0) | st.booleans()),
    "choice": ({"enum": ["x", "y"]}, st.sampled_from(["x", "y"]), st.sampled_from(["X", "z", 1, None])),
    "code": ({"type": "string", "pattern": "^a+$"}, st.text("a", min_size=1), st.sampled_from(["", "b", "aab"])),
    "flag": ({"type": "boolean"}, st.booleans(), st.sampled_from([0, 1, "true", None])),
    "list": (
        {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        st.lists(st.integers(), max_size=3),
        st.sampled_from([[1, 2, 3, 4], ["a"], {}, None]),
    ),
}


@st.composite
def definitions(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A schema, arguments that fit it, and arguments that do not: a wrong value, one too many, or one too few."""
    names = draw(st.lists(st.sampled_from("abcde"), min_size=1, unique=True))
    kinds = {name: KINDS[draw(st.sampled_from(sorted(KINDS)))] for name in names}
    required = [name for name in names if draw(st.booleans())]
    parameters: dict[str, Any] = {"properties": {name: kind[0] for name, kind in kinds.items()}, "required": required}
    if draw(st.booleans()):
        parameters = {"allOf": [parameters]}
    fit = {name: draw(kind[1]) for name, kind in kinds.items() if name in required or draw(st.booleans())}
    name = draw(st.sampled_from(names))
    unfit = [{**fit, name: draw(kinds[name][2])}, {**fit, draw(st.sampled_from(["tenant_id", "A", ""])): "x"}]
    unfit += [{key: value for key, value in fit.items() if key != gone} for gone in required]
    return usable(parameters), fit, draw(st.sampled_from(unfit))


class Counting:
    examples = ()

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.spec = ToolSpec("counting", "Count its calls.", parameters)
        self.calls: list[dict[str, Any]] = []

    async def run(self, call: ToolCall) -> ToolOutput:
        self.calls.append(dict(call.arguments))
        return ToolOutput("counted")


@given(definitions())
async def test_t04_what_fits_runs_as_it_is_and_what_does_not_is_told_and_counted_and_never_runs(
    drawn: tuple[dict[str, Any], dict[str, Any], dict[str, Any]],
) -> None:
    parameters, fit, unfit = drawn
    counting, turned_away = Counting(parameters), []
    toolbox = ScopedToolbox(
        [counting], tenant_id="t", user_id="u", run_id="r", trace=RunTrace("r"), turned_away=turned_away.append
    )
    refused = await toolbox.run(ToolProposal("c1", "counting", unfit))
    assert (refused.status, counting.calls, turned_away) == ("retry", [], ["counting"])
    assert refused.content.removeprefix("the arguments do not fit: ")
    assert (await toolbox.run(ToolProposal("c2", "counting", fit))).status == "ok"
    assert counting.calls == [fit]


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "array"}, "not one of an object"),
        ({"type": "object", "properties": {"a": {"type": "strin"}}}, "no JSON schema"),
        ({"properties": {"a": {"$ref": "http://169.254.169.254/x"}}}, "outside it"),
        ({"$ref": "file:///etc/passwd"}, "outside it"),
        ({"properties": {"a": {"$dynamicRef": "other.json"}}}, "outside it"),
        ({"patternProperties": {"(a+)+$": {}}}, "by patterns"),
        ({"properties": {"a": {"pattern": "(?<=a)b"}}}, "linear time"),
        ({"properties": {"a": {"enum": ["x" * 70_000]}}}, "more than 64000 characters"),
    ],
)
def test_a_schema_that_cannot_be_checked_here_is_not_used(schema: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=told):
        usable(schema)


def test_a_schema_without_a_bottom_is_not_used() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        schema = {"properties": {"a": schema}}
    with pytest.raises(Invalid, match="levels"):
        usable(schema)


def test_a_schema_that_refers_to_itself_or_to_nothing_ends() -> None:
    looped = usable({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})
    missing = usable({"properties": {"a": {"$ref": "#/$defs/nothing"}}})
    for schema in (looped, missing):
        assert argument_problems(ToolSpec("x", "", schema), {"a": 1}) == [
            "they cannot be checked against the tool's schema"
        ]


def test_v08_a_pattern_costs_time_in_step_with_the_text() -> None:
    spec = ToolSpec("x", "", usable({"properties": {"a": {"type": "string", "pattern": "^(a|a)*$"}}}))
    began = time.process_time()
    assert argument_problems(spec, {"a": "a" * 5_000 + "!"})
    assert time.process_time() - began < 5  # backtracking would take longer than the universe has
