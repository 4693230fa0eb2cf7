"""Reads the YAML file into a Config, or says at which line and path it is wrong.

Everything that can be known without calling anybody is checked: types and ranges, unknown and doubled keys, names
that point nowhere, cycles of routes, prices that nobody knows, secrets that the environment lacks. All faults are told
at once.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from app.config.price import UNPRICED, known
from app.config.schema import Allowance, Config
from app.config.tools import server_faults
from app.config.words import worded
from graphs.errors import Invalid

MAX_FILE_BYTES: Final = 4 << 20
RESERVED: Final = "pilothouse/"  # `model: pilothouse/rag` names a graph
MERGE: Final = "tag:yaml.org,2002:merge"
NUMBERS: Final = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
DECIMAL: Final = re.compile(
    r"[-+]?(0|[1-9][\d_]{0,63})(\.[\d_]{0,63})?([eE][-+]?\d{1,9})?|[-+]?\.(\d[\d_]{0,63}([eE][-+]?\d{1,9})?|inf|nan)",
    re.IGNORECASE,
)

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: `path` as written in the file, `line` from 1 (0 where the file has none)."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class ConfigInvalid(Invalid):
    """The configuration file cannot be used; `faults` names every reason."""

    code = "config_invalid"

    def __init__(self, source: str, faults: list[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: fault.line))
        super().__init__(f"{source} cannot be used:\n" + "\n".join(f"  {fault}" for fault in self.faults))


Check = Callable[[Config], Iterable[tuple[Path_, str]]]
"""Finds what only a service can know to be wrong: where in the file, and what."""


def load(path: Path, environment: Mapping[str, str] = os.environ, *, checks: Sequence[Check] = ()) -> Config:
    """The configuration in `path`. Raises ConfigInvalid."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigInvalid(str(path), [Fault("", 0, f"the file has more than {MAX_FILE_BYTES} bytes")])
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(str(path), [Fault("", 0, f"the file cannot be read ({type(error).__name__})")]) from error
    return parse(text, environment, source=str(path), checks=checks)


def parse(
    text: str,
    environment: Mapping[str, str] = os.environ,
    *,
    source: str = "the configuration",
    checks: Sequence[Check] = (),
) -> Config:
    """The same for text at hand. Raises ConfigInvalid."""
    lines: dict[Path_, int] = {}
    faults: list[Fault] = []
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_aliases(text)
        if root is not None:
            _walk(root, (), lines, faults)
        value = yaml.safe_load(text) if root is not None else {}
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigInvalid(source, [Fault("", line, f"YAML holds no character U+{error.character:04X}")]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or "this is not YAML"
        raise ConfigInvalid(source, [Fault("", mark.line + 1 if mark else 0, str(said))]) from error
    except (RecursionError, ValueError) as error:
        told = Fault("", 0, f"this is not YAML that can be read ({error})")
        raise ConfigInvalid(source, faults or [told]) from error
    if not isinstance(value, dict):
        raise ConfigInvalid(source, [Fault("", 1, "the file must be a mapping")])
    try:
        config = Config.model_validate(value)
    except ValidationError as error:
        faults += [
            _fault(item["loc"], worded(item["type"], item.get("ctx", {}), item["msg"]), lines)
            for item in error.errors()
        ]
        raise ConfigInvalid(source, faults) from None
    faults += [_fault(path, message, lines) for path, message in _cross_checks(config, environment)]
    faults += [_fault(path, message, lines) for check in checks for path, message in check(config)]
    if not faults:
        faults += [_fault(path, message, lines) for path, message in _check_reach(config)]
    if faults:
        raise ConfigInvalid(source, faults)
    return config


def _refuse_aliases(text: str) -> None:
    """Anchors have no use here and can blow a small file up to gigabytes."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _alias(event.start_mark)


def _alias(mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=mark)


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], faults: list[Fault]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if key.tag == MERGE:
                faults.append(Fault(_dotted((*path, name)), key.start_mark.line + 1, "keys are not merged here"))
            elif name in seen:
                faults.append(Fault(_dotted((*path, name)), key.start_mark.line + 1, "the key is written twice"))
            seen.add(name)
            _walk(value, (*path, name), lines, faults)
            lines[*path, name] = key.start_mark.line + 1
    elif node.tag in NUMBERS and not DECIMAL.fullmatch(node.value):
        # YAML reads 0600 as 384 and 1:30 as 90.
        faults.append(Fault(_dotted(path), node.start_mark.line + 1, "must be written in decimal digits"))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, faults)


def _fault(path: Path_, message: str, lines: Mapping[Path_, int]) -> Fault:
    known = next((path[:length] for length in range(len(path), -1, -1) if path[:length] in lines), ())
    return Fault(_dotted(path), lines.get(known, 0), message)


def _dotted(path: Path_) -> str:
    # Pydantic names the key of a mapping that is itself wrong as [key].
    return ".".join(str(part) for part in path if part != "[key]")


def _cross_checks(config: Config, environment: Mapping[str, str]) -> Iterator[tuple[Path_, str]]:
    yield from _check_names(config)
    for name, provider in config.providers.items():
        if provider.api_key_env is not None and not environment.get(provider.api_key_env):
            yield ("providers", name, "api_key_env"), f"the environment has no {provider.api_key_env}"
    for field in ("webhook_url_env", "webhook_secret_env"):
        if (variable := getattr(config.alerts, field)) is not None and not environment.get(variable):
            yield ("alerts", field), f"the environment has no {variable}"
    if (secret := config.outbound.webhook_secret_env) is not None and not environment.get(secret):
        yield ("outbound", "webhook_secret_env"), f"the environment has no {secret}"
    for path, message in config.approvals.faults(environment, signed=secret is not None):
        yield ("approvals", *path), message
    for path, message in config.answers.faults():
        yield ("answers", *path), message
    yield from server_faults(config.mcp_servers, environment)
    for path, message in config.tool_policy.faults():
        yield ("tool_policy", *path), message
    for name, model in config.models.items():
        if model.provider not in config.providers:
            yield ("models", name, "provider"), f"there is no provider {model.provider!r}"
        elif (kind := config.providers[model.provider].kind) not in KINDS[model.kind]:
            yield ("models", name, "kind"), f"a provider of kind {kind} {CANNOT[model.kind]}"
        elif known(model, config.providers[model.provider]) is None:
            yield ("models", name), UNPRICED
        for field in ("query_prefix", "passage_prefix"):
            if getattr(model, field) and model.kind != "embedding":
                yield ("models", name, field), "only an embedding model reads texts with a prefix"
    yield from _check_routes(config)
    for at, (allowance, *_) in _allowances(config):
        yield from _check_allowance(config, at, allowance)
    for index, example in enumerate(config.examples):
        if not _is_known(config, example.model):
            yield ("examples", index, "model"), f"there is no model or route {example.model!r}"


def _check_names(config: Config) -> Iterator[tuple[Path_, str]]:
    for name in config.models.keys() & config.routes.keys():
        yield ("routes", name), "a model has this name too, so a caller could not say which is meant"
    for name in OWN_RERANKERS & (config.models.keys() | config.routes.keys()):
        yield ("models" if name in config.models else "routes", name), "a search would take it for another re-ranker"
    for group in ("models", "routes"):
        for name in getattr(config, group):
            if name.startswith(RESERVED):
                yield (group, name), f"names that begin with {RESERVED} are those of graphs"


def _check_routes(config: Config) -> Iterator[tuple[Path_, str]]:
    for name, route in config.routes.items():
        for index, candidate in enumerate(route.candidates):
            if not _is_known(config, candidate):
                yield ("routes", name, "candidates", index), f"there is no model or route {candidate!r}"
            elif not _fits(config, name, candidate):
                yield ("routes", name, "candidates", index), f"{candidate!r} is not a chat model"
        if (cycle := _cycle(config, name)) is not None:
            yield ("routes", name, "candidates"), f"the route falls back on itself: {' -> '.join(cycle)}"


def _check_retrieval(config: Config) -> Iterator[tuple[Path_, str]]:
    named: dict[Path_, str] = {(): config.retrieval.rerank}
    named |= {("collections", name): search.rerank for name, search in config.retrieval.collections.items()}
    for at, name in named.items():
        kinds = {config.models[each].kind for each in config.model_names(name) if each in config.models}
        if name not in OWN_RERANKERS and kinds != {"rerank"}:
            yield ("retrieval", *at, "rerank"), f"{name!r} is no re-rank model and no route of such"


def _fits(config: Config, route: str, candidate: str) -> bool:
    """Whether the candidate is a chat model, or re-ranks as all models of its route do."""
    if candidate not in config.models:
        return True  # another route, or an embedded model
    kinds = {config.models[each].kind for each in config.routes[route].candidates if each in config.models}
    return config.models[candidate].kind == "chat" or kinds == {"rerank"}


def _cycle(config: Config, start: str) -> tuple[str, ...] | None:
    """The way from a route back to itself, if there is one."""
    open_ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while open_ways:
        way = open_ways.pop()
        for candidate in config.routes[way[-1]].candidates:
            if candidate == start:
                return (*way, start)
            if candidate in config.routes and candidate not in seen:
                seen.add(candidate)
                open_ways.append((*way, candidate))
    return None


def _allowances(config: Config) -> Iterator[tuple[Path_, tuple[Allowance, ...]]]:
    """Where each stands in the file, it, and the tenant's around it if it is of a part of one."""
    for tenant_id, tenant in config.tenants.items():
        yield ("tenants", tenant_id), (tenant,)
        for group in ("users", "features", "keys"):
            for name, allowance in getattr(tenant, group).items():
                yield ("tenants", tenant_id, group, name), (allowance, tenant)


def _check_allowance(config: Config, at: Path_, allowance: Allowance) -> Iterator[tuple[Path_, str]]:
    for index, name in enumerate(allowance.models or ()):
        if not _is_known(config, name) and name != EMBEDDING:
            yield (*at, "models", index), f"there is no model or route {name!r}"
    for index, step in enumerate(allowance.degrade):
        if step.route is not None and not _is_known(config, step.route):
            yield (*at, "degrade", index, "route"), f"there is no model or route {step.route!r}"


def _check_reach(config: Config) -> Iterator[tuple[Path_, str]]:
    """What has to be followed through the routes, once these are known to lead somewhere."""
    yield from _check_retrieval(config)
    for at, allowances in _allowances(config):
        yield from _check_ladder(config, at, *allowances)


def _check_ladder(config: Config, at: Path_, *allowances: Allowance) -> Iterator[tuple[Path_, str]]:
    """Every list that there is has to allow a model of the route that a step leads to."""
    lists = [
        {model for name in allowance.models for model in config.model_names(name)}
        for allowance in allowances
        if allowance.models is not None
    ]
    for index, step in enumerate(allowances[0].degrade):
        if step.route is not None and not set(config.model_names(step.route)).intersection(*lists):
            yield (*at, "degrade", index, "route"), f"none of the models of {step.route!r} is among those allowed"


def _is_known(config: Config, name: str) -> bool:
    return name in config.models or name in config.routes or name in EMBEDDED


EMBEDDED: Final = frozenset({"extractive", "smollm2-135m-instruct"})
"""Models that are always there; a file may name them without declaring them."""

OWN_RERANKERS: Final = frozenset({"none", "maxsim"})
"""What stands for no re-rank model of the file."""

EMBEDDING: Final = "all-minilm-l6-v2"
"""The model that embeds and is always there; a route cannot hold it, an allowance can."""

KINDS: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset({"openai", "anthropic", "llamacpp", "extractive", "langchain", "scripted"}),
    "embedding": frozenset({"openai", "llamacpp", "langchain", "onnx"}),
    "rerank": frozenset({"openai", "rerank", "onnx"}),
}
"""Kinds of providers by what their models may do."""

CANNOT: Final[Mapping[str, str]] = {
    "chat": "answers nothing",
    "embedding": "embeds nothing",
    "rerank": "re-ranks nothing",
}
