"""The choice between edges."""

from typing import Any, Literal, TypedDict

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.graph import END, START, StateGraph

from graphs.steps.way import Way


class Count(TypedDict):
    count: int


class Starts(BaseCallbackHandler):
    def __init__(self) -> None:
        self.names: list[str] = []

    def on_chain_start(self, *_: Any, **given: Any) -> None:
        self.names.append(given["name"])


async def add(state: Count) -> Count:
    return {"count": state["count"] + 1}


def enough(state: Count) -> Literal["more", "stop"]:
    return "stop" if state["count"] >= 3 else "more"


async def test_a_way_chooses_by_the_state_that_its_station_left_and_is_no_traced_run_of_its_own() -> None:
    graph = StateGraph(Count)
    graph.add_node("add", add)
    graph.add_edge(START, "add")
    graph.add_conditional_edges("add", Way(enough), {"more": "add", "stop": END})
    starts = Starts()

    found = await graph.compile().ainvoke({"count": 0}, {"callbacks": [starts]})

    assert found == {"count": 3}
    assert starts.names == ["LangGraph", "add", "add", "add"]
