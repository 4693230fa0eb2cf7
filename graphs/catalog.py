"""The graphs by name, and a fingerprint that changes whenever what a graph does may have changed."""

import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from langgraph.graph import StateGraph

from graphs.agent.graph import build as build_agent
from graphs.chat.graph import build as build_chat
from graphs.context import RunContext
from graphs.errors import Missing
from graphs.rag.graph import build as build_rag

Builder = Callable[[], StateGraph[Any, RunContext, Any, Any]]

CATALOG: Final[dict[str, Builder]] = {"chat": build_chat, "rag": build_rag, "agent": build_agent}
# Outside the graph's own package, these decide what it does.
_SHARED: Final = ("graphs.steps", "graphs.cite", "graphs.prompts", "graphs.refusal", "graphs.sentences")


def build(name: str) -> StateGraph[Any, RunContext, Any, Any]:
    """A fresh, uncompiled graph. Raises Missing for an unknown name."""
    if name not in CATALOG:
        raise Missing(f"there is no graph {name}", field="mode")
    return CATALOG[name]()


@cache
def fingerprint(name: str) -> str:
    """12 hex digits over the sources of the graph, its shared stations and every packaged prompt."""
    build(name)
    digest = sha256(name.encode())
    for module in sorted(_modules(f"graphs.{name}", *_SHARED)):
        digest.update(inspect.getsource(import_module(module)).encode())
    for path in sorted(Path(__file__).with_name("prompts").glob("*.toml")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _modules(*names: str) -> set[str]:
    found = set(names)
    for name in names:
        package = import_module(name)
        if (
            hasattr(package, "__path__")
            and package.__spec__ is not None
            and package.__spec__.submodule_search_locations
        ):
            found |= {module.name for module in pkgutil.iter_modules(package.__path__, f"{name}.")}
    return found
