import pytest

from app.config.answers import AnswersConfig, answer_lines
from app.config.load import ConfigInvalid, parse

FILE = """
answers:
  unsupported: remove
  link_hosts: [docs.example]
  tenants:
    acme: {links: listed, rules: ["tests.app.own_rules:no_discount_promises"], rules_then: flag}
    umbrella: {unsupported: flag}
"""


def test_a_tenant_differs_from_everybody_in_what_it_names() -> None:
    answers = parse(FILE, {}).answers
    acme, umbrella, other = (answers.of(name) for name in ("acme", "umbrella", "other"))
    assert (acme.unsupported, acme.links, acme.link_hosts) == ("remove", "listed", ("docs.example",))
    assert (umbrella.unsupported, umbrella.links) == ("flag", "keep")
    assert other is answers
    assert acme.policy.holds(grounded=True)
    assert not acme.policy.holds(grounded=False)
    assert not umbrella.policy.holds(grounded=True)


@pytest.mark.parametrize(
    ("line", "text", "said"),
    [
        (2, "answers:\n  unsupported: delete", "answers.unsupported: must be 'flag', 'remove' or 'refuse'"),
        (2, "answers:\n  rules: [shop]", "answers.rules.0: must match"),
        (2, "answers:\n  rules: ['no.such.module:x']", "answers.rules.0: no.such.module cannot be imported"),
        (4, "answers:\n  tenants:\n    acme:\n      rules: ['tests.app.own_rules:not_a_rule']", "is no rule"),
        (3, "answers:\n  tenants:\n    acme: {tenants: {}}", "answers.tenants.acme.tenants: there is no such key"),
        (2, "answers:\n  rules_timeout_s: yes", "must be a number, not true or false"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line: int, text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse(text, {})
    (fault,) = refused.value.faults
    assert fault.line == line
    assert said in str(fault)


def test_config_check_says_what_holds_and_what_is_held() -> None:
    assert dict(answer_lines(AnswersConfig())) == {"everybody": "unsupported: flag, personal: keep, links: keep"}
    lines = dict(answer_lines(parse(FILE, {}).answers))
    assert lines["tenant acme"].endswith("(flag, closed), held until checked")
    assert "to docs.example" in lines["tenant acme"]
