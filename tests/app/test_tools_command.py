"""`pilothouse tools`: what an operator sees of tools, and how one is accepted."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.services.tools import test_langchain
from tests.services.tools.test_langchain import HERE

FILE = f"""
tools:
  greet: {{kind: langchain, path: "{HERE}:greet", risk: write, tenants: [acme]}}
  calculator: {{kind: builtin, enabled: false}}
"""


@pytest.fixture(autouse=True)
def _installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pilothouse.yaml").write_text(FILE)
    monkeypatch.setenv("PILOTHOUSE_HOME", str(tmp_path))
    monkeypatch.setenv("PILOTHOUSE_CONFIG", str(tmp_path / "pilothouse.yaml"))
    monkeypatch.setenv("COLUMNS", "200")


def tools(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tools", *arguments])


def row(name: str) -> list[str]:
    (line,) = [line for line in tools("list").output.splitlines() if line.startswith(f"{name} ")]
    return line.split()


def test_t13_a_definition_is_listed_with_its_hash_accepted_by_it_and_shown_where_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *before, digest = row("greet")
    assert before == ["greet", "langchain", "write", "acme,", "chat", "new"]
    assert [row("calculator")[-2], row("web_fetch")[-2], row("current_time")[-2]] == ["off", "off", "on"]
    refused = tools("accept", "greet", "--hash", "0" * 64)
    assert (refused.exit_code, digest in refused.output) == (1, True)
    assert tools("accept", "greet", "--hash", digest).exit_code == 0
    assert row("greet")[5] == "on"
    assert "tool.accepted" in CliRunner().invoke(app, ["audit", "list"]).output
    monkeypatch.setattr(test_langchain.greet, "description", "Say hello,\u200b and more.")
    assert row("greet")[5] == "changed"
    shown = tools("show", "greet").output
    assert '-  "description": "Say hello.",' in shown
    assert r'+  "description": "Say hello,\u200b and more.",' in shown


def test_a_warning_of_a_tool_that_is_off_names_it_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    tools("list")
    assert [record.getMessage().split(": ")[-1] for record in caplog.records if record.name == "pilothouse.tools"] == [
        "pilothouse tools accept greet"
    ]


def test_what_is_no_tool_or_needs_nobodys_word_is_said() -> None:
    assert tools("show", "nothing").exit_code == 1
    assert "comes with its release" in tools("accept", "create_ticket").output
