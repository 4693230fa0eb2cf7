"""What one builds first: the chat graph with LangChain's own model, traced by MLflow's autolog into its SQLite store.

    echo 5 | python benchmarks/stock.py --home /tmp/stock

For each line of standard input, a number of seconds, runs as many as it can and says `runs cpu_s wall_s`. The graph has
the stations of `runs.bare_graph`, of which one asks `ChatOpenAI`. It checks no key, keeps no row, ledger or checkpoint.
The upstream of fake_upstream.py has to be up. In a process of its own, because autolog hooks every graph of a process.
"""

import argparse
import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gateway

from app.settings import quiet_libraries


def stock_graph() -> Any:
    from langchain_openai import ChatOpenAI
    from langgraph.graph import END, START, MessagesState, StateGraph
    from pydantic import SecretStr

    model = ChatOpenAI(
        model="fake", base_url=f"http://127.0.0.1:{gateway.UPSTREAM}/v1", api_key=SecretStr("none"), max_retries=0
    )

    async def complete(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def station(_: MessagesState) -> dict[str, Any]:
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("screen", station)
    graph.add_node("complete", complete)
    graph.add_node("validate", station)
    graph.add_edge(START, "screen")
    graph.add_edge("screen", "complete")
    graph.add_edge("complete", "validate")
    graph.add_edge("validate", END)
    return graph.compile()


async def drive(question: str, at_once: int) -> None:
    graph = stock_graph()

    async def caller(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            await graph.ainvoke({"messages": [("user", question)]})
            done += 1
        return done

    while line := await asyncio.to_thread(sys.stdin.readline):
        began, used = time.perf_counter(), time.process_time()
        counts = await asyncio.gather(*(caller(began + float(line)) for _ in range(at_once)))
        print(sum(counts), time.process_time() - used, time.perf_counter() - began, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--home", type=Path, required=True)
    arguments.add_argument("--question", default="Say a few words about the harbour.")
    arguments.add_argument("--at-once", type=int, default=16)
    chosen = arguments.parse_args()
    quiet_libraries()

    import mlflow
    import uvloop

    # It says of each trace that its queue drops that it was dropped.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(f"sqlite:///{chosen.home / 'mlflow.db'}")
    mlflow.langchain.autolog()
    uvloop.run(drive(chosen.question, chosen.at_once))


if __name__ == "__main__":
    main()
