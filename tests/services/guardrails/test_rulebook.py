"""Rules are asked in time, and a broken one counts as its policy says."""

import time

import pytest

from app.services.guardrails.rulebook import RuleBook
from graphs.rules import Answered, Rule
from graphs.types import Verdict
from tests.app.own_rules import broken, endless, no_discount_promises

CHEAP, PLAIN = Answered("It is 20% off.", "How much?"), Answered("It costs 5.", "How much?")


def verdict(action: str, *reasons: str) -> tuple[Verdict, ...]:
    return (Verdict("rules", "output", action, reasons),)  # type: ignore[arg-type]


async def test_an_answer_that_fails_a_rule_is_flagged_or_refused() -> None:
    flags, refuses = RuleBook([no_discount_promises]), RuleBook([no_discount_promises], refuses=True)
    assert await flags.judge(CHEAP) == verdict("flag", "no_discount_promises")
    assert await refuses.judge(CHEAP) == verdict("block", "no_discount_promises")
    assert await refuses.judge(PLAIN) == verdict("allow")


async def test_without_rules_there_is_no_verdict() -> None:
    assert await RuleBook([]).judge(CHEAP) == ()


@pytest.mark.parametrize("rule", [broken, endless], ids=lambda rule: rule.name)
async def test_a_broken_rule_counts_as_configured(rule: Rule) -> None:
    name = f"{rule.name} (broken)"
    closed = RuleBook([rule], refuses=True, on_error="closed", timeout_s=0.05)
    assert await closed.judge(PLAIN) == verdict("block", name)
    assert await RuleBook([rule], refuses=True, on_error="open", timeout_s=0.05).judge(PLAIN) == verdict("flag", name)


async def test_an_endless_rule_does_not_stop_the_others() -> None:
    book = RuleBook([endless, no_discount_promises], on_error="open", timeout_s=0.05)
    started = time.monotonic()
    assert await book.judge(CHEAP) == verdict("flag", "no_discount_promises", "endless (broken)")
    assert time.monotonic() - started < 1.4
