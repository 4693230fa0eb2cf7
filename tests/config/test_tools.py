"""What the file may say of tools and MCP servers, and how it is told that it may not."""

import pytest

from app.check import tools as told_tools
from app.config.load import ConfigInvalid, parse
from app.config.schema import Config
from app.services.tools.builtins import BUILTINS, builtin_faults, grants


def read(text: str, **environment: str) -> Config:
    return parse(text, environment, checks=(builtin_faults,))


SERVER = """
mcp_servers:
  files:
    command: files-server
    args: [--root, /srv]
    env: [HOME]
    tools:
      list: {risk: read}
      remove: {risk: destructive, tenants: [acme], scope: documents, timeout_s: 5, max_concurrent: 1}
"""


def test_a_server_of_the_file_grants_what_it_lists_each_with_terms_of_its_own() -> None:
    config = read(SERVER, HOME="/")
    server = config.mcp_servers["files"]
    assert (server.command, server.args, server.env) == ("files-server", ("--root", "/srv"), ("HOME",))
    remove = server.tools["remove"]
    assert (remove.risk, remove.scope, remove.tenants, remove.max_concurrent) == (
        "destructive",
        "documents",
        ("acme",),
        1,
    )
    assert [remove.is_for("acme"), remove.is_for("other"), server.tools["list"].is_for("other")] == [True, False, True]


def test_config_check_says_who_may_use_which_tool() -> None:
    config = read("tools:\n  create_ticket: {kind: builtin, enabled: false}\n" + SERVER, HOME="/")
    told = {name: (risk, who) for name, risk, who, _ in told_tools(config)}
    assert told["files__remove"] == ("destructive", "acme; keys for documents")
    assert told["calculator"] == ("read", "every tenant; keys for chat")
    assert "create_ticket" not in told


def test_a_built_in_is_everybodys_unless_the_file_says_otherwise() -> None:
    assert {name: grant.enabled for name, grant in grants({}).items()} == {
        name: builtin.is_on for name, builtin in BUILTINS.items()
    }
    config = read("tools:\n  calculator: {kind: builtin, risk: write, tenants: []}\n  web_fetch: {kind: builtin}\n")
    found = grants(config.tools)
    assert (found["calculator"].risk, found["calculator"].is_for("acme")) == ("write", False)
    assert found["web_fetch"].enabled


def fault(text: str) -> tuple[int, str, str]:
    with pytest.raises(ConfigInvalid) as raised:
        read(text)
    (found,) = raised.value.faults
    return found.line, found.path, found.message


@pytest.mark.parametrize(
    ("entry", "path", "told"),
    [
        ("x__y: {kind: builtin}", "x__y", "must match"),
        ("x: {kind: langchain, path: 'a:b'}", "x", "needs risk"),
        ("x: {kind: langchain, risk: read}", "x", "needs path"),
        ("x: {kind: langchain, risk: read, path: a.b}", "x.path", "must match"),
        ("calculator: {kind: builtin, path: 'a:b'}", "calculator", "neither path nor"),
        ("calculator: {kind: langchain, path: 'a:b', risk: read}", "calculator.kind", "built-in"),
        ("calc: {kind: builtin}", "calc", "no built-in tool of this name"),
        ("create_ticket: {kind: builtin, risk: read}", "create_ticket.risk", "only be raised"),
        ("calculator: {kind: builtin, options: {a: 1}}", "calculator.options", "has none"),
        ("web_fetch: {kind: builtin, options: {max_chars: x}}", "web_fetch.options.max_chars", "whole number"),
        ("calculator: {kind: builtin, scope: admin}", "calculator.scope", "must be 'owner'"),
        ("calculator: {kind: builtin, pin: abc}", "calculator.pin", "must match"),
        ("calculator: {kind: builtin, timeout_s: yes}", "calculator.timeout_s", "not true or false"),
    ],
)
def test_what_is_wrong_with_a_tool_is_told_by_its_line_and_path(entry: str, path: str, told: str) -> None:
    line, where, message = fault(f"tools:\n  {entry}\n")
    assert (line, where, told in message) == (2, f"tools.{path}", True)


@pytest.mark.parametrize(
    ("entry", "path", "told"),
    [
        ("tools: {x: {risk: read}}", "", "either command or url"),
        ("command: c, url: 'http://h', tools: {x: {risk: read}}", "", "either command or url"),
        ("url: 'ftp://h', tools: {x: {risk: read}}", "", "http:// or https://"),
        ("url: 'http://u:p@h', tools: {x: {risk: read}}", "", "headers_env"),
        ("url: 'http://h', env: [A], tools: {x: {risk: read}}", "", "belong to command"),
        ("command: c, headers_env: {X: A}, tools: {x: {risk: read}}", "", "belongs to url"),
        ("command: c, tools: {x: {}}", ".tools.x.risk", "missing"),
        ("command: c, tools: {}", ".tools", "at least 1"),
        ("command: c, env: [NOWHERE], tools: {x: {risk: read}}", ".env.0", "NOWHERE"),
        ("url: 'http://h', headers_env: {K: NOWHERE}, tools: {x: {risk: read}}", ".headers_env.K", "NOWHERE"),
        (f"command: c, tools: {{{'x' * 62}: {{risk: read}}}}", f".tools.{'x' * 62}", "more than 64 characters"),
    ],
)
def test_what_is_wrong_with_a_server_is_told_by_its_line_and_path(entry: str, path: str, told: str) -> None:
    line, where, message = fault(f"mcp_servers:\n  a: {{{entry}}}\n")
    assert (line, where, told in message) == (2, f"mcp_servers.a{path}", True)


@pytest.mark.parametrize(
    ("section", "path", "name"),
    [
        ("tool_policy:\n  rules: [{tool: create_tickets, then: deny}]", "tool_policy.rules.0.tool", "create_tickets"),
        ('tool_policy:\n  rules: [{tool: "crm__*", then: deny}]', "tool_policy.rules.0.tool", "crm__*"),
        ("approvals:\n  rules: [{tools: [calc], two_person: true}]", "approvals.rules.0.tools", "calc"),
    ],
)
def test_a_rule_for_a_tool_that_is_nowhere_is_told_and_not_taken_for_one_that_holds(
    section: str, path: str, name: str
) -> None:
    assert fault(section) == (2, path, f"there is no tool {name!r}")


def test_rules_may_name_every_tool_of_the_file_and_those_that_are_off() -> None:
    rules = "[{tool: [files__remove, 'fi*', weather, run_python], then: deny}]"
    tool = "tools:\n  weather: {kind: langchain, path: 'a:b', risk: read}\n"
    read(f"{tool}{SERVER}tool_policy:\n  rules: {rules}\napprovals:\n  rules: [{{tools: [files__list]}}]\n", HOME="/")


def test_options_are_checked_where_they_are_written() -> None:
    line, where, _ = fault("tools:\n  web_fetch:\n    kind: builtin\n    options:\n      max_chars: x\n")
    assert (line, where) == (5, "tools.web_fetch.options.max_chars")
