"""`pilothouse config check`: what it says of a file is what the desk and the router would do."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import check, cli
from app.config.load import ConfigInvalid, parse

FILE = """
providers: {lab: {kind: openai, base_url: http://127.0.0.1:9001/v1, api_key_env: LAB_KEY}}
models:
  big:   {provider: lab, model: ok, input_usd_per_mtok: 2.0, output_usd_per_mtok: 8.0, context_tokens: 128000}
  small: {provider: lab, model: ok2, input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}
routes:
  default: {candidates: [big, small]}
  summarize: {candidates: [big, small], policy: cost}
tenants:
  acme:
    budget_usd_month: 50
    models: [big, small]
    degrade: [{at: 0.8, route: summarize}, {at: 1.0, answer: extractive}]
    users: {ann: {models: [small]}}
examples:
"""
HELD = [
    "{tenant: acme, expect: {allowed: true, model: big, candidates: [big, small]}}",
    "{tenant: acme, user: ann, expect: {model: small}}",
    "{tenant: acme, user: ann, model: big, expect: {allowed: false, code: forbidden}}",
    "{tenant: acme, spent_usd: 45, expect: {model: small, degraded: route summarize}}",
    "{tenant: acme, spent_usd: 50, task: rag, expect: {model: extractive, degraded: extractive}}",
    "{tenant: acme, spent_usd: 50, expect: {allowed: false, code: quota_exhausted}}",
    "{tenant: acme, input_tokens: 20000, expect: {candidates: [big]}}",
    "{tenant: acme, input_tokens: 900000, expect: {code: prompt_too_long}}",
    "{tenant: other, model: summarize, expect: {candidates: [small, big]}}",
]
BROKEN = [
    "{tenant: acme, expect: {model: small}}",
    "{tenant: acme, expect: {allowed: false}}",
    "{tenant: acme, expect: {candidates: [small, big]}}",
    "{tenant: acme, expect: {degraded: route summarize}}",
    "{tenant: acme, expect: {code: forbidden}}",
]


def verdicts(examples: list[str]) -> list[check.Verdict]:
    return check.run_examples(parse(FILE + "".join(f"  - {item}\n" for item in examples), {"LAB_KEY": "x"}))


@pytest.mark.parametrize("example", HELD)
def test_an_example_that_says_what_would_happen_holds(example: str) -> None:
    (verdict,) = verdicts([example])
    assert verdict.faults == ()


@pytest.mark.parametrize("example", BROKEN)
def test_an_example_that_says_something_else_is_told(example: str) -> None:
    (verdict,) = verdicts([example])
    assert len(verdict.faults) == 1


def test_it_prints_who_may_use_what() -> None:
    config = parse(FILE + "  []\n", {"LAB_KEY": "x"})
    who = {entry.who.strip(): entry for entry in check.entries(config)}
    assert who["tenant acme"].models == ("big", "small")
    assert who["user ann"].models == ("small",)
    assert "50 USD a month" in who["tenant acme"].limits
    assert who["any other tenant"].limits == ("no limits",)


def test_a_price_that_nobody_knows_is_refused_by_its_file_line_and_path() -> None:
    text = (
        "providers: {lab: {kind: openai, base_url: http://x/v1}}\nmodels: {odd: {provider: lab, model: nobody-knows}}"
    )
    with pytest.raises(ConfigInvalid, match=r"p\.yaml .*\n.*line 2: models\.odd: the price list"):
        parse(text, {}, source="p.yaml")


def test_the_command_ends_with_1_where_an_example_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_KEY", "x")
    path = tmp_path / "pilothouse.yaml"
    path.write_text(FILE + f"  - {HELD[0]}\n")
    good = CliRunner().invoke(cli.app, ["config", "check", str(path)])
    assert (good.exit_code, "is fine" in good.output) == (0, True)
    path.write_text("tool_policy: {rules: [{tool: [create_ticket, 'web*'], origin: read, then: two_person}]}\n")
    ruled = CliRunner().invoke(cli.app, ["config", "check", str(path)]).output
    assert re.search(
        "tool create_ticket, web\\*; origin read +two person *\\nany other +allow where it reads, else ask", ruled
    )
    path.write_text(FILE + f"  - {BROKEN[0]}\n")
    assert CliRunner().invoke(cli.app, ["config", "check", str(path)]).exit_code == 1
    path.write_text(FILE + "  []\nrouts: {}\n")
    bad = CliRunner().invoke(cli.app, ["config", "check", str(path)])
    assert (bad.exit_code, "line" in bad.stderr) == (1, True)
