import pytest

from app.config.load import ConfigInvalid, parse
from app.config.retention import retention_lines

FILE = """
retention:
  conversations_days: 90
  tickets_days: 365
  tenants:
    acme: {conversations_days: 30, tickets_days: null, jobs_days: 1.5}
    globex: {}
"""


def test_a_tenant_differs_from_everybody_in_what_it_names() -> None:
    retention = parse(FILE, {}).retention
    ages = {name: {kind: age.days for kind, age in retention.of(name).ages.items()} for name in ("acme", "other")}
    assert ages == {"acme": {"conversations": 30}, "other": {"conversations": 90, "tickets": 365}}
    assert retention.jobs_of_tenants == {"acme": 1.5}
    assert retention.forgets
    assert not parse("", {}).retention.forgets


def test_config_check_says_for_how_long_what_is_kept() -> None:
    assert retention_lines(parse(FILE, {}).retention) == [
        ("everybody", "conversations 90 d, tickets 365 d"),
        ("tenant acme", "conversations 30 d, jobs 1.5 d"),
        ("tenant globex", "conversations 90 d, tickets 365 d"),
    ]
    assert retention_lines(parse("", {}).retention) == [("everybody", "all but jobs for ever")]


@pytest.mark.parametrize("days", ["0", "-1", ".inf", "yes", "soon"])
def test_days_that_are_none_are_refused_with_their_line(days: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse(f"retention:\n  runs_days: {days}", {})
    assert "retention.runs_days" in str(refused.value)
