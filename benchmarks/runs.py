"""How many chat runs a second one core drives through the LangGraph graph, recorded and traced.

    python benchmarks/runs.py --rounds 5 --seconds 5 [--door http]

`runner` calls the runner in this process; `http` sends `POST /api/ai/chat` to a served instance. Every run goes through
screen, prompt, model call (the zero-delay upstream of fake_upstream.py, on the other core), validation, the ledger, and
leaves its row, events, spans and messages in SQLite before its answer is given. Figures are medians over the rounds
with the smallest and largest; CPU is that of the process under test. `runner` also drives, turn by turn with the runs,
the chat graph's three stations with nothing in them: what LangGraph takes by itself on this machine; and `stock.py`,
what one builds first. Compare with those two: the machine's own speed is in all three.
"""

import argparse
import asyncio
import gc
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gateway
import loader
import uvloop

QUESTION = "Say a few words about the harbour."


@dataclass
class Rounds:
    """Runs a second and milliseconds of CPU a run, of each round; `count` runs in all."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    count: int = 0

    async def measure(self, caller: Callable[[float], Awaitable[int]], at_once: int, seconds: float) -> None:
        began, used = time.perf_counter(), time.process_time()
        done = sum(await asyncio.gather(*(caller(began + seconds) for _ in range(at_once))))
        self.rates.append(done / (time.perf_counter() - began))
        self.cpu_ms.append((time.process_time() - used) / done * 1e3)
        self.count += done

    async def let(self, stock: asyncio.subprocess.Process, seconds: float) -> None:
        assert stock.stdin is not None
        assert stock.stdout is not None
        stock.send_signal(signal.SIGCONT)
        stock.stdin.write(b"%f\n" % seconds)
        count, cpu_s, wall_s = (await stock.stdout.readline()).split()
        stock.send_signal(signal.SIGSTOP)  # the traces that it still writes away would slow the others down
        self.rates.append(int(count) / float(wall_s))
        self.cpu_ms.append(float(cpu_s) / int(count) * 1e3)
        self.count += int(count)

    def told(self, name: str, at_once: int) -> str:
        rate, cpu = gateway.spread(self.rates, 0), gateway.spread(self.cpu_ms)
        return f"{name}, {at_once} at once, n = {self.count}: {rate} runs/s, {cpu} ms of CPU a run"


def bare_graph() -> Any:
    """Three stations in a row that do nothing, of the chat graph's state."""
    from langgraph.graph import END, START, StateGraph

    from graphs.chat.state import ChatState

    async def station(state: ChatState) -> dict[str, Any]:
        return {"answer": "word"}

    graph = StateGraph(ChatState)
    for name in ("screen", "complete", "validate"):
        graph.add_node(name, station)
    graph.add_edge(START, "screen")
    graph.add_edge("screen", "complete")
    graph.add_edge("complete", "validate")
    graph.add_edge("validate", END)
    return graph.compile()


@asynccontextmanager
async def stock_process(home: Path, at_once: int) -> AsyncIterator[asyncio.subprocess.Process]:
    script = Path(__file__).with_name("stock.py")
    options = ["--home", str(home), "--question", QUESTION, "--at-once", str(at_once)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), *options, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def in_process(home: Path, rounds: int, seconds: float, at_once: int) -> tuple[Rounds, Rounds, Rounds]:
    from app.records import Principal, RunRequest
    from app.settings import Settings
    from app.workbench import open_workbench

    who = Principal("acme", "ann", frozenset({"chat"}), "k1")
    ours, alone, stocks, graph = Rounds(), Rounds(), Rounds(), bare_graph()
    async with (
        open_workbench(Settings.offline(home, export_traces=False)) as bench,
        stock_process(home, at_once) as stock,
    ):
        await bench.until_ready()

        async def caller(until: float) -> int:
            done = 0
            while time.perf_counter() < until:
                card = await bench.runner.run(who, RunRequest(QUESTION))
                if card.status != "completed":
                    raise SystemExit(f"a run ended as {card.status}: {card.error}")
                done += 1
            return done

        async def bare(until: float) -> int:
            done = 0
            while time.perf_counter() < until:
                async for _ in graph.astream({"question": QUESTION}, stream_mode=["custom", "values"]):
                    pass
                done += 1
            return done

        await asyncio.gather(*(caller(time.perf_counter() + 2) for _ in range(at_once)))
        await Rounds().let(stock, 3)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        for _ in range(rounds):
            await ours.measure(caller, at_once, seconds)
            await alone.measure(bare, at_once, seconds / 2)
            await stocks.let(stock, seconds)
    return ours, alone, stocks


async def over_http(rounds: int, seconds: float, at_once: int, pid: int) -> Rounds:
    target = loader.Target("pilothouse", gateway.PILOTHOUSE, "/api/ai/chat", key=gateway.OWNER_KEY)
    body = {"message": QUESTION, "mode": "chat"}
    result = Rounds()
    await loader.load(target, at_once=at_once, seconds=2, stream=False, body=body)
    for _ in range(rounds):
        used, began = gateway.cpu_s(pid), time.perf_counter()
        got = await loader.load(target, at_once=at_once, seconds=seconds, stream=False, body=body)
        done = got.rate * (time.perf_counter() - began)
        if got.failed:
            raise SystemExit(f"{got.failed} runs failed")
        result.rates.append(got.rate)
        result.cpu_ms.append((gateway.cpu_s(pid) - used) / done * 1e3)
        result.count += round(done)
    return result


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--at-once", type=int, default=16)
    arguments.add_argument("--door", choices=("runner", "http"), default="runner")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder) / "home"
        gateway.open_upstream(stack)
        if chosen.door == "http":
            os.sched_setaffinity(0, {1})
            process = gateway.open_pilothouse(stack, home, limits=False)
            result = asyncio.run(over_http(chosen.rounds, chosen.seconds, chosen.at_once, process.pid))
            print(result.told("http", chosen.at_once))
        else:
            os.sched_setaffinity(0, {0})
            home.mkdir()
            (home / "pilothouse.yaml").write_text(gateway.CONFIG)
            ours, alone, stocks = uvloop.run(in_process(home, chosen.rounds, chosen.seconds, chosen.at_once))
            print(ours.told("runner", chosen.at_once))
            print(alone.told("LangGraph alone, three empty stations", chosen.at_once))
            print(stocks.told("LangGraph, ChatOpenAI and autolog", chosen.at_once))
    print(f"median [min, max] of {chosen.rounds} rounds")


if __name__ == "__main__":
    main()
