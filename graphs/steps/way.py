"""A choice between edges, by state alone."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig

S = TypeVar("S", bound=Mapping[str, Any])
C = TypeVar("C")


class Way(Runnable[S, C], Generic[S, C]):
    """`choose` as an edge's condition. As a plain function, LangGraph would make each choice a traced run of its own,
    which costs more than a whole station (0.4 ms)."""

    def __init__(self, choose: Callable[[S], C]) -> None:
        self.name, self._choose = choose.__name__, choose

    def invoke(self, input: S, config: RunnableConfig | None = None, **kwargs: Any) -> C:
        return self._choose(input)

    async def ainvoke(self, input: S, config: RunnableConfig | None = None, **kwargs: Any) -> C:
        return self._choose(input)
