"""RAG: screen, word what is searched, retrieve, write the prompt, answer from the passages, measure the support."""

from langgraph.graph import END, START, StateGraph

from graphs.context import RunContext
from graphs.rag.nodes import complete, decline, expand, found_any, prompt, retrieve, reword, wants_variants
from graphs.rag.state import RagState
from graphs.steps.outcome import Question
from graphs.steps.screen import passed, screen
from graphs.steps.station import station
from graphs.steps.validate import validate
from graphs.steps.way import Way


def build() -> StateGraph[RagState, RunContext, Question, RagState]:
    graph = StateGraph(RagState, RunContext, input_schema=Question, output_schema=RagState)
    graph.add_node("screen", station(screen))
    graph.add_node("reword", station(reword))
    graph.add_node("expand", station(expand))
    graph.add_node("retrieve", station(retrieve))
    graph.add_node("prompt", station(prompt))
    graph.add_node("complete", station(complete))
    graph.add_node("decline", station(decline))
    graph.add_node("validate", station(validate))
    graph.add_edge(START, "screen")
    graph.add_conditional_edges("screen", Way(passed), {"go": "reword", "stop": END})
    graph.add_conditional_edges("reword", wants_variants, {"some": "expand", "none": "retrieve"})
    graph.add_edge("expand", "retrieve")
    graph.add_conditional_edges("retrieve", Way(found_any), {"some": "prompt", "none": "decline"})
    graph.add_edge("prompt", "complete")
    graph.add_edge("complete", "validate")
    graph.add_edge("decline", "validate")
    graph.add_edge("validate", END)
    return graph
