"""How many chat runs a second one core drives through the LangGraph graph, recorded and traced.

    python benchmarks/runs.py --rounds 5 --seconds 5 [--door http]

`runner` calls the runner in this process; `http` sends `POST /api/ai/chat` to a served instance. Every run goes through
screen, prompt, model call (the zero-delay upstream of fake_upstream.py, on the other core), validation, the ledger, and
leaves its row, events, spans and messages in SQLite before its answer is given. Figures are medians over the rounds
with the smallest and largest; CPU is that of the process under test.
"""

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gateway
import loader
import uvloop

QUESTION = "Say a few words about the harbour."


async def in_process(home: Path, rounds: int, seconds: float, at_once: int) -> tuple[list[float], list[float], int]:
    from app.records import Principal, RunRequest
    from app.settings import Settings
    from app.workbench import open_workbench

    who = Principal("acme", "ann", frozenset({"chat"}), "k1")
    rates, cpu, count = [], [], 0
    async with open_workbench(Settings.offline(home, export_traces=False)) as bench:
        await bench.until_ready()

        async def caller(until: float) -> int:
            done = 0
            while time.perf_counter() < until:
                card = await bench.runner.run(who, RunRequest(QUESTION))
                if card.status != "completed":
                    raise SystemExit(f"a run ended as {card.status}: {card.error}")
                done += 1
            return done

        await asyncio.gather(*(caller(time.perf_counter() + 2) for _ in range(at_once)))
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        for _ in range(rounds):
            began, used = time.perf_counter(), time.process_time()
            done = sum(await asyncio.gather(*(caller(began + seconds) for _ in range(at_once))))
            rates.append(done / (time.perf_counter() - began))
            cpu.append((time.process_time() - used) / done * 1e3)
            count += done
    return rates, cpu, count


async def over_http(rounds: int, seconds: float, at_once: int, pid: int) -> tuple[list[float], list[float], int]:
    target = loader.Target("pilothouse", gateway.PILOTHOUSE, "/api/ai/chat", key=gateway.OWNER_KEY)
    body = {"message": QUESTION, "mode": "chat"}
    rates, cpu, count = [], [], 0
    await loader.load(target, at_once=at_once, seconds=2, stream=False, body=body)
    for _ in range(rounds):
        used, began = gateway.cpu_s(pid), time.perf_counter()
        got = await loader.load(target, at_once=at_once, seconds=seconds, stream=False, body=body)
        done = got.rate * (time.perf_counter() - began)
        if got.failed:
            raise SystemExit(f"{got.failed} runs failed")
        rates.append(got.rate)
        cpu.append((gateway.cpu_s(pid) - used) / done * 1e3)
        count += round(done)
    return rates, cpu, count


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
        else:
            os.sched_setaffinity(0, {0})
            home.mkdir()
            (home / "pilothouse.yaml").write_text(gateway.CONFIG)
            result = uvloop.run(in_process(home, chosen.rounds, chosen.seconds, chosen.at_once))
    rates, cpu, count = result
    print(f"{chosen.door}, {chosen.at_once} at once, n = {count}: {gateway.spread(rates, 0)} runs/s,", end=" ")
    print(f"{gateway.spread(cpu)} ms of CPU a run; median [min, max] of {chosen.rounds} rounds")


if __name__ == "__main__":
    main()
