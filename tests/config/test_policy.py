import pytest

from app.config.load import ConfigInvalid, parse
from app.config.policy import ToolPolicy


def policy(text: str) -> ToolPolicy:
    return parse(text, {}).tool_policy


POLICY = """
tool_policy:
  rules:
    - {tool: create_ticket, origin: [clean, read], tenant: acme, then: allow}
    - {tool: "crm__*", risk: destructive, then: two_person}
    - {tool: "crm__*", origin: document, then: deny}
    - {risk: destructive, then: deny}
  examples:
    - {tool: create_ticket, risk: write, tenant: acme, expect: allow}
    - {tool: create_ticket, risk: write, origin: document, tenant: acme, expect: ask}
    - {tool: crm__delete, risk: destructive, origin: document, expect: two_person}
"""


def test_the_first_rule_that_fits_a_call_decides_and_is_named() -> None:
    ruled = policy(POLICY).ruled
    assert ruled("acme", "create_ticket", "write", "read") == ("allow", "rule 1 of tool_policy says allow")
    assert ruled("acme", "crm__delete", "destructive", "document")[0] == "two_person"
    assert ruled("acme", "crm__note", "outbound", "document")[0] == "deny"
    assert ruled("acme", "files", "destructive", "clean") == ("deny", "rule 4 of tool_policy says deny")


def test_a_call_that_no_rule_fits_goes_the_ordinary_way() -> None:
    for ruled in (policy(POLICY).ruled, policy("").ruled):
        assert ruled("globex", "search_documents", "read", "document") == ("allow", "")
        assert ruled("globex", "create_ticket", "write", "clean") == ("ask", "")
        assert ruled("globex", "create_ticket", "outbound", "tool") == ("ask", "")
    assert policy("").ruled("globex", "files", "destructive", "document") == ("ask", "")


@pytest.mark.parametrize(
    ("rules", "dead"),
    [
        ("[{then: deny}, {tool: a, then: allow}]", [1]),
        ('[{tool: "a*", then: ask}, {tool: ab, then: allow}]', [1]),
        ('[{tool: ab, then: ask}, {tool: "a*", then: allow}]', []),
        ("[{risk: [read, write], then: ask}, {risk: [outbound, destructive], then: deny}, {tool: a, then: ask}]", [2]),
        ("[{tenant: x, then: ask}, {tenant: y, then: ask}, {tenant: [x, y], then: deny}]", [2]),
        ("[{tenant: x, then: ask}, {tool: a, then: ask}, {tool: a, tenant: x, then: deny}]", [2]),
        ("[{tenant: x, risk: read, then: ask}, {tool: a, then: ask}, {tenant: x, then: deny}]", []),
        ("[{origin: [clean, read], then: ask}, {origin: [document, tool, earlier], then: ask}, {then: deny}]", [2]),
    ],
)
def test_a_rule_that_no_call_can_reach_is_a_fault(rules: str, dead: list[int]) -> None:
    text = f"tool_policy:\n  rules: {rules}\n"
    if not dead:
        assert policy(text)
        return
    with pytest.raises(ConfigInvalid) as told:
        parse(text, {})
    assert [fault.path for fault in told.value.faults] == [f"tool_policy.rules.{number}" for number in dead]


def test_an_example_that_does_not_hold_is_told_with_its_line_and_what_decided() -> None:
    told = "line 9: tool_policy.examples.0.expect: deny was expected; rule 1 of tool_policy says allow"
    with pytest.raises(ConfigInvalid, match=told):
        parse(POLICY.replace("tenant: acme, expect: allow}", "tenant: acme, expect: deny}"), {})


@pytest.mark.parametrize("rule", ["{tool: a}", "{tool: 'a*b', then: ask}", "{origin: web, then: ask}", "{then: maybe}"])
def test_a_rule_that_says_nothing_or_what_does_not_exist_is_refused(rule: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse(f"tool_policy: {{rules: [{rule}]}}", {})
