"""Tool agent: decide, wait for approval where policy asks for it, act, decide again; then answer and validate."""

from langgraph.graph import END, START, StateGraph

from graphs.agent.nodes import act, after_approve, after_decide, answer, approve, decide
from graphs.agent.state import AgentState
from graphs.context import RunContext
from graphs.steps.outcome import Question
from graphs.steps.screen import passed, screen
from graphs.steps.station import station
from graphs.steps.validate import validate
from graphs.steps.way import Way


def build() -> StateGraph[AgentState, RunContext, Question, AgentState]:
    graph = StateGraph(AgentState, RunContext, input_schema=Question, output_schema=AgentState)
    graph.add_node("screen", station(screen))
    graph.add_node("decide", station(decide))
    graph.add_node("approve", station(approve))
    graph.add_node("act", station(act))
    graph.add_node("answer", station(answer))
    graph.add_node("validate", station(validate))
    graph.add_edge(START, "screen")
    graph.add_conditional_edges("screen", Way(passed), {"go": "decide", "stop": END})
    graph.add_conditional_edges("decide", after_decide, ["approve", "act", "answer", "validate"])
    graph.add_conditional_edges("approve", after_approve, ["approve", "act"])
    graph.add_edge("act", "decide")
    graph.add_edge("answer", "validate")
    graph.add_edge("validate", END)
    return graph
