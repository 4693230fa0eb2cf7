"""`guards:` in the file: what holds for whom, and what is no rule."""

import pytest

from app.config.guards import GuardsConfig, guard_lines
from app.config.load import ConfigInvalid, parse

FILE = """
guards:
  input:
    personal: {action: redact, kinds: {ip_address: allow}}
    language: {action: flag, allowed: [en]}
  tenants:
    acme:
      input:
        personal: {on_failure: closed}
        language: {allowed: [de, en]}
        topics: {action: block, denied: {medicine: ["Which dose of this drug should I take?"]}}
      read: {injection: flag}
      storage: original
"""


def test_a_tenant_changes_what_it_names_and_keeps_the_rest() -> None:
    rules = parse(FILE, {}).guards.of("acme")
    assert (rules.input.personal.action, rules.input.personal.on_failure) == ("redact", "closed")
    assert rules.input.personal.of("ip_address") == "allow"
    assert (rules.input.language.action, rules.input.language.allowed) == ("flag", ("de", "en"))
    assert (rules.input.injection.action, rules.storage, rules.telemetry) == ("flag", "original", "as_sent")


def test_whoever_is_not_listed_has_what_everybody_has() -> None:
    assert parse(FILE, {}).guards.of("other").input.language.allowed == ("en",)
    assert GuardsConfig().of("anybody").input.injection.action == "flag"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("input: {language: {action: block}}", "names none that is allowed"),
        ("tenants: {acme: {input: {topics: {action: block}}}}", "topics of acme has no examples"),
        ("input: {injection: {action: redact}}", "must be 'allow', 'flag' or 'block'"),
        ("input: {personal: {kinds: {names: redact}}}", "must be"),
        ("input: {secrets: {timeout_s: 0}}", "must be more than 0"),
    ],
)
def test_what_is_no_rule_is_told_with_its_line(part: str, said: str) -> None:
    with pytest.raises(ConfigInvalid, match=said):
        parse(f"guards: {{{part}}}", {})


def test_config_check_says_what_is_looked_for() -> None:
    assert dict(guard_lines(GuardsConfig())) == {"everybody": "injection: flag"}
    lines = dict(guard_lines(parse(FILE, {}).guards))
    assert lines["tenant acme"] == (
        "personal: redact, ip_address allow or fail; injection: flag; language: flag; topics: block; "
        "passages and tool results: flag; storage: original"
    )
