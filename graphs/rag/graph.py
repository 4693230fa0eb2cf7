"""RAG: screen the question, retrieve, write the prompt, answer from the passages, measure the support."""

from langgraph.graph import END, START, StateGraph

from graphs.context import RunContext
from graphs.rag.nodes import complete, decline, found_any, prompt, retrieve
from graphs.rag.state import RagState
from graphs.steps.outcome import Question
from graphs.steps.screen import passed, screen
from graphs.steps.station import station
from graphs.steps.validate import validate


def build() -> StateGraph[RagState, RunContext, Question, RagState]:
    graph = StateGraph(RagState, RunContext, input_schema=Question, output_schema=RagState)
    graph.add_node("screen", station(screen))
    graph.add_node("retrieve", station(retrieve))
    graph.add_node("prompt", station(prompt))
    graph.add_node("complete", station(complete))
    graph.add_node("decline", station(decline))
    graph.add_node("validate", station(validate))
    graph.add_edge(START, "screen")
    graph.add_conditional_edges("screen", passed, {"go": "retrieve", "stop": END})
    graph.add_conditional_edges("retrieve", found_any, {"some": "prompt", "none": "decline"})
    graph.add_edge("prompt", "complete")
    graph.add_edge("complete", "validate")
    graph.add_edge("decline", "validate")
    graph.add_edge("validate", END)
    return graph
