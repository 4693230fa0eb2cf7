"""Chat: screen the question, answer from the conversation, check the answer."""

from langgraph.graph import END, START, StateGraph

from graphs.chat.nodes import complete
from graphs.chat.state import ChatState
from graphs.context import RunContext
from graphs.steps.outcome import Question
from graphs.steps.screen import passed, screen
from graphs.steps.station import station
from graphs.steps.validate import validate
from graphs.steps.way import Way


def build() -> StateGraph[ChatState, RunContext, Question, ChatState]:
    graph = StateGraph(ChatState, RunContext, input_schema=Question, output_schema=ChatState)
    graph.add_node("screen", station(screen))
    graph.add_node("complete", station(complete))
    graph.add_node("validate", station(validate))
    graph.add_edge(START, "screen")
    graph.add_conditional_edges("screen", Way(passed), {"go": "complete", "stop": END})
    graph.add_edge("complete", "validate")
    graph.add_edge("validate", END)
    return graph
