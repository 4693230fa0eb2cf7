"""The approvals of the configuration: which rule holds for a call, what is a fault, and what the check shows."""

from typing import Any

import pytest

from app.config.approvals import ApprovalConfig, approval_lines
from app.config.load import ConfigInvalid, parse


def config(**section: Any) -> ApprovalConfig:
    return ApprovalConfig.model_validate(section)


def test_the_first_rule_that_fits_holds_and_the_section_says_the_rest() -> None:
    rules = config(
        expires_after_s=60,
        users=["ann"],
        rules=[
            {"tenants": ["acme"], "risks": ["destructive"], "two_person": True, "groups": ["leads"]},
            {"tenants": ["acme"], "own_runs": "refuse"},
            {"tenants": ["acme"], "tools": ["pay"], "own_runs": "allow"},
        ],
    )
    strict = rules.of("acme", "drop_table", "destructive")
    assert (strict.two_person, strict.users, strict.groups, strict.expires_after_s) == (True, (), ("leads",), 60)
    assert strict.names("bob", frozenset({"leads"}))
    assert not strict.names("ann", frozenset())
    assert (rules.of("acme", "pay", "write").own_runs, rules.of("acme", "pay", "write").users) == ("refuse", ("ann",))
    assert rules.of("umbrella", "drop_table", "destructive") == rules
    assert rules.of("acme").own_runs == "refuse"  # of an escalation: a rule for some risks alone is not about it


def test_without_a_section_everybody_who_holds_the_scope_decides_alone() -> None:
    terms = config().of("acme", "create_ticket", "write")
    assert (terms.two_person, terms.own_runs, terms.on_expiry) == (False, "allow", "deny")
    assert terms.names("anybody", frozenset())


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("approvals: {on_expiry: allow}", "approvals.on_expiry", "must be 'deny' or 'escalate'"),
        ("approvals: {expires_after_s: 0}", "approvals.expires_after_s", "must be more than 0"),
        ("approvals: {rules: [{risk: write}]}", "approvals.rules.0.risk", "there is no such key"),
        ("approvals: {rules: [{risks: [mild]}]}", "approvals.rules.0.risks.0", "must be 'read'"),
        ("approvals: {webhook_url_env: HOOK}", "approvals.webhook_url_env", "has to be signed"),
        (
            "outbound: {webhook_secret_env: SIGN}\napprovals: {rules: [{webhook_url_env: GONE}]}",
            "approvals.rules.0.webhook_url_env",
            "the environment has no GONE",
        ),
        ("approvals: {rules: [{tools: [pay]}, {tools: [pay], users: [ann]}]}", "approvals.rules.1", "no call comes"),
        ("approvals: {rules: [{own_runs: allow}, {tools: [pay]}]}", "approvals.rules.1", "no call comes as far"),
    ],
)
def test_what_is_wrong_is_told_by_its_place(text: str, path: str, message: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse(text, {"HOOK": "https://hooks.test/", "SIGN": "whsec_x"})
    told = {fault.path: fault.message for fault in refused.value.faults}
    assert message in told[path]


def test_the_check_shows_who_decides_on_what_and_how() -> None:
    lines = approval_lines(
        config(webhook_url_env="HOOK", rules=[{"tools": ["pay"], "groups": ["leads"], "two_person": True}])
    )
    assert lines[0][:2] == ("tool pay", "two of group leads")
    assert lines[1][:2] == ("any other", "one of all with the scope approvals")
    assert "told to HOOK" in lines[0][2]
