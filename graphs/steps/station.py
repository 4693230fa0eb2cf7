"""Times a node as a station of the run, so that nodes themselves write no telemetry."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from langgraph.runtime import Runtime

from graphs.context import RunContext

S = TypeVar("S", bound=Mapping[str, Any])
U = TypeVar("U", bound=Mapping[str, Any])


def station(node: Callable[[S, Runtime[RunContext]], Awaitable[U]]) -> Any:
    """The same node inside a span that carries its name, the keys it could read and the update it gave.

    What the run withholds from its model is withheld from its trace.

    Typed Any because LangGraph's overloads of `add_node` do not accept a generic coroutine function.
    """

    async def timed(state: S, runtime: Runtime[RunContext]) -> U:
        ctx = runtime.context
        if ctx.tell is not None:
            runtime = runtime.override(stream_writer=ctx.tell)
        shown = {key: value for key, value in state.items() if key != "withheld"}
        with ctx.trace.span(node.__name__, "station", inputs=shown) as span:
            update = await node(state, runtime)
            span.set(outputs=dict(update))
            return update

    timed.__name__ = node.__name__
    timed.__doc__ = node.__doc__
    return timed
