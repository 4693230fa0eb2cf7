"""The tools that come with the product, by name: what the file may say of each before one is made for a run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError

from app.config.part import Part
from app.config.policy import named
from app.config.schema import Config
from app.config.tools import ToolConfig, spaced
from app.config.words import worded
from app.services.tools.calculator import Calculator
from app.services.tools.create_ticket import CreateTicket
from app.services.tools.current_time import CurrentTime
from app.services.tools.run_python import RunPython, RunPythonOptions
from app.services.tools.run_sql import RunSql, RunSqlOptions
from app.services.tools.search_documents import SearchDocuments
from app.services.tools.web_fetch import WebFetch, WebFetchOptions
from graphs.taint import RISKS
from graphs.types import ToolSpec

P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True)
class Builtin:
    """`is_on` without a word in the file. `repeatable`: two calls with one key have one effect, or none that lasts."""

    spec: ToolSpec
    options: type[Part] | None = None
    is_on: bool = True
    repeatable: bool = True


BUILTINS: Final[Mapping[str, Builtin]] = {
    each.spec.name: each
    for each in (
        Builtin(SearchDocuments.spec),
        Builtin(Calculator.spec),
        Builtin(CurrentTime.spec),
        Builtin(CreateTicket.spec),
        Builtin(WebFetch.spec, WebFetchOptions, is_on=False),
        Builtin(RunSql.spec, RunSqlOptions, is_on=False),
        Builtin(RunPython.spec, RunPythonOptions, is_on=False),
    )
}


def grants(tools: Mapping[str, ToolConfig]) -> dict[str, ToolConfig]:
    """What holds for each built-in: what the file says of it, or that it is everybody's where it is on by itself."""
    return {
        name: tools.get(name, ToolConfig(kind="builtin", enabled=builtin.is_on)) for name, builtin in BUILTINS.items()
    }


def options_of(tools: Mapping[str, ToolConfig], name: str, kind: type[P]) -> P:
    """A built-in's own settings. They have been checked when the file was read."""
    return kind.model_validate(tools[name].options if name in tools else {})


def builtin_faults(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong in the file with what it says of built-ins, or of tools that are nowhere: where, and what."""
    yield from _rules_of_nothing(config)
    for name, tool in config.tools.items():
        if tool.kind != "builtin":
            if name in BUILTINS:
                yield ("tools", name, "kind"), "a built-in tool has this name"
            continue
        if (builtin := BUILTINS.get(name)) is None:
            yield ("tools", name), f"there is no built-in tool of this name; they are {', '.join(sorted(BUILTINS))}"
            continue
        if tool.risk is not None and RISKS.index(tool.risk) < RISKS.index(builtin.spec.risk):
            yield ("tools", name, "risk"), f"it is a tool that can {builtin.spec.risk}; its risk may only be raised"
        if tool.enabled:
            yield from _option_faults(name, tool, builtin)


def _rules_of_nothing(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Rules for tools that do not exist: a name that is mistyped leaves the tool that was meant without its rule."""
    remote = {spaced(server, tool) for server, part in config.mcp_servers.items() for tool in part.tools}
    names = BUILTINS.keys() | config.tools.keys() | remote
    for number, rule in enumerate(config.tool_policy.rules):
        for pattern in rule.tool or ():
            if not any(named(pattern, name) for name in names):
                yield ("tool_policy", "rules", number, "tool"), f"there is no tool {pattern!r}"
    for number, terms in enumerate(config.approvals.rules):
        for name in terms.tools:
            if name not in names:
                yield ("approvals", "rules", number, "tools"), f"there is no tool {name!r}"


def _option_faults(name: str, tool: ToolConfig, builtin: Builtin) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if builtin.options is None:
        if tool.options:
            yield ("tools", name, "options"), "this tool has none"
        return
    try:
        builtin.options.model_validate(tool.options)
    except ValidationError as error:
        for item in error.errors():
            told = worded(item["type"], item.get("ctx", {}), item["msg"])
            yield ("tools", name, "options", *item["loc"]), told
