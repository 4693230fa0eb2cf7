"""The graphs by name, and a fingerprint that changes whenever what a graph does may have changed."""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
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
_SHARED: Final = (
    *("cite", "fence", "likeness", "policy", "prompts", "refusal"),
    *("rules", "sentences", "taint", "toolhash", "words"),
)


def build(name: str) -> StateGraph[Any, RunContext, Any, Any]:
    """A fresh, uncompiled graph. Raises Missing for an unknown name."""
    if name not in CATALOG:
        raise Missing(f"there is no graph {name}", field="mode")
    return CATALOG[name]()


@cache
def fingerprint(name: str) -> str:
    """12 hex digits over the sources of the graph, its shared stations and every packaged prompt."""
    build(name)
    here = Path(__file__).parent
    sources = [here / f"{module}.py" for module in _SHARED]
    sources += [*(here / name).glob("*.py"), *(here / "steps").glob("*.py"), *(here / "prompts").glob("*.toml")]
    digest = sha256(name.encode())
    for path in sorted(sources):
        digest.update(path.relative_to(here).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
