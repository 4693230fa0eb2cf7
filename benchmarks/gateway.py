"""What the gateway adds to a model call, and how many calls one core serves: beside the bare upstream and LiteLLM.

    python benchmarks/gateway.py --rounds 5 --seconds 3 [--litellm /path/to/venv]

One core for the system under test (taskset), the other for upstream and loader. All systems answer the same calls, turn
by turn in every round; figures are medians over the rounds, with the smallest and largest beside them. Pilothouse runs
as `pilothouse serve` does: key check, limits, ledger on SQLite, output patterns, breakers, retries armed, metrics. With
`--litellm`, a virtual environment that holds `litellm[proxy]`, its proxy runs with one worker and a master key.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from loader import Load, Target, load

HERE = Path(__file__).parent
OWNER_KEY = "ph-benchmark-owner-key-of-40-characters!"
UPSTREAM, PILOTHOUSE, LITELLM = 9_101, 9_102, 9_103
LIMITS = """\
tenants:
  default: {budget_usd_month: 100000, requests_per_minute: 10000000, tokens_per_minute: 100000000000, concurrent_runs: 1000}
"""
CONFIG = f"""\
providers: {{lab: {{kind: openai, base_url: "http://127.0.0.1:{UPSTREAM}/v1"}}}}
models:
  fake: {{provider: lab, model: fake, input_usd_per_mtok: 2.0, output_usd_per_mtok: 8.0, context_tokens: 128000}}
  spare: {{provider: lab, model: fake, input_usd_per_mtok: 2.0, output_usd_per_mtok: 8.0, context_tokens: 128000}}
routes:
  default: {{candidates: [fake, spare], timeout_s: 60, first_token_timeout_s: 20, retries: 2}}
"""
LITELLM_CONFIG = f"""\
model_list:
  - model_name: fake
    litellm_params: {{model: openai/fake, api_base: "http://127.0.0.1:{UPSTREAM}/v1", api_key: none}}
general_settings: {{master_key: {OWNER_KEY}}}
litellm_settings: {{telemetry: false}}
"""


@contextmanager
def running(
    command: list[str], core: int | str, port: int, ready: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server on one core, once `ready` answers 200 or the port is open."""
    log = tempfile.NamedTemporaryFile(suffix=".log", delete=False)  # noqa: SIM115 - outlives this function on failure
    pinned = ["taskset", "-c", str(core), *command]
    process = subprocess.Popen(
        pinned, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
    )
    try:
        _await(port, ready, process, log.name)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await(port: int, ready: str, process: subprocess.Popen[bytes], log: str) -> None:
    until = time.monotonic() + 900  # a crowded machine took five minutes to load it all
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"a server ended with {process.returncode}; see {log}")
        request = Request(f"http://127.0.0.1:{port}{ready}", headers={"authorization": f"Bearer {OWNER_KEY}"})
        try:
            with urlopen(request, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"a server did not come up; see {log}")


def open_upstream(stack: ExitStack) -> None:
    process = subprocess.Popen(
        ["taskset", "-c", "1", sys.executable, str(HERE / "fake_upstream.py"), "--port", str(UPSTREAM)]
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", UPSTREAM), timeout=1):
            return
        time.sleep(0.05)
    sys.exit("the upstream did not come up")


def open_pilothouse(
    stack: ExitStack, home: Path, *, limits: bool, durable: bool = False, core: int | str = 0
) -> subprocess.Popen[bytes]:
    home.mkdir(exist_ok=True)
    config = home / "gateway.yaml"
    config.write_text(CONFIG + (LIMITS if limits else ""))
    return stack.enter_context(
        running(
            [str(Path(sys.executable).with_name("pilothouse")), "serve"],
            core,
            PILOTHOUSE,
            "/readyz",
            PILOTHOUSE_HOME=str(home),
            PILOTHOUSE_PORT=str(PILOTHOUSE),
            PILOTHOUSE_OWNER_KEY=OWNER_KEY,
            PILOTHOUSE_CONFIG=str(config),
            PILOTHOUSE_MLRUNS=str(home / "mlruns"),
            PILOTHOUSE_LEDGER_DURABLE=str(durable),
        )
    )


def open_litellm(stack: ExitStack, venv: Path, home: Path) -> None:
    config = home / "litellm.yaml"
    config.write_text(LITELLM_CONFIG)
    stack.enter_context(
        running(
            [str(venv / "bin" / "litellm"), "--config", str(config), "--port", str(LITELLM), "--num_workers", "1"],
            0,
            LITELLM,
            "/health/liveliness",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_TELEMETRY="False",
            NO_PROXY="*",
        )
    )


def rss_mib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def cpu_s(pid: int) -> float:
    """What a process has used so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def compare(targets: list[Target], rounds: int, seconds: float) -> dict[tuple[str, str], list[Load]]:
    """Every target in every setting, turn by turn."""
    settings = [
        (f"{kind} c={at_once}", at_once, kind == "stream") for kind in ("json", "stream") for at_once in (1, 16, 64)
    ]
    found: dict[tuple[str, str], list[Load]] = {}
    for target in targets:
        for stream in (False, True):  # warm
            await load(target, at_once=4, seconds=1, stream=stream)
    for _ in range(rounds):
        for name, at_once, stream in settings:
            for target in targets:
                got = await load(target, at_once=at_once, seconds=seconds, stream=stream)
                found.setdefault((target.name, name), []).append(got)
    return found


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}, {max(values):,.{digits}f}]"


def report(found: dict[tuple[str, str], list[Load]], targets: list[Target]) -> None:
    names = list(dict.fromkeys(name for _, name in found))
    for name in names:
        print(f"\n{name}: median [min, max] of {len(found[targets[0].name, name])} rounds")
        print("| system | calls/s | p50 ms | p99 ms | first event ms | failed |\n|---|---|---|---|---|---|")
        for target in targets:
            loads = found[target.name, name]
            columns = [
                spread([item.rate for item in loads], 0),
                *(spread([getattr(item, field) for item in loads]) for field in ("p50_ms", "p99_ms", "first_ms")),
                str(sum(item.failed for item in loads)),
            ]
            print(f"| {target.name} | {' | '.join(columns)} |")
    print()
    ours = "pilothouse"
    _ratio(found, "added p50 c=1, JSON", "json c=1", ours, lambda item: item.p50_ms)
    _ratio(found, "added first event c=1", "stream c=1", ours, lambda item: item.first_ms)
    for name in ("json c=16", "stream c=16"):
        if ("litellm", name) in found:
            pairs = zip(found[ours, name], found["litellm", name], strict=True)
            print(f"calls/s over LiteLLM, {name}: {spread([a.rate / max(b.rate, 1e-9) for a, b in pairs], 1)}")
    print(f"p99/p50 c=64, JSON: {spread([item.p99_ms / item.p50_ms for item in found[ours, 'json c=64']], 1)}")


def _ratio(
    found: dict[tuple[str, str], list[Load]], told: str, name: str, ours: str, value: Callable[[Load], float]
) -> None:
    bare = [value(item) for item in found["bare upstream", name]]
    added = [value(item) - base for item, base in zip(found[ours, name], bare, strict=True)]
    print(f"{told}: {spread(added, 3)} ms")
    if ("litellm", name) in found:
        theirs = [value(item) - base for item, base in zip(found["litellm", name], bare, strict=True)]
        print(
            f"  LiteLLM: {spread(theirs, 3)} ms, {spread([b / a for a, b in zip(added, theirs, strict=True)], 1)} times ours"
        )


def ledger_rows(home: Path) -> dict[str, Any]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(home / "pilothouse.db")) as database:
        return dict(database.execute("SELECT state, count(*) FROM ledger GROUP BY state").fetchall())


async def soak(target: Target, process: subprocess.Popen[bytes], calls: int) -> None:
    """Memory before, half-way and after."""
    await load(target, at_once=16, seconds=600, stream=False, most=300)
    begun = rss_mib(process)
    for part in range(4):
        await load(target, at_once=16, seconds=600, stream=part % 2 == 1, most=calls // 64)
        print(f"after {(part + 1) * calls // 4:,} calls: {rss_mib(process):.0f} MiB (began at {begun:.0f})", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=3.0)
    arguments.add_argument("--litellm", type=Path, help="virtual environment with litellm[proxy]")
    arguments.add_argument("--no-limits", action="store_true", help="a configuration without tenants")
    arguments.add_argument("--durable", action="store_true", help="the ledger waits for the disk")
    arguments.add_argument("--soak", type=int, default=0, help="so many calls, printing memory; nothing else")
    chosen = arguments.parse_args()
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder) / "home"
        open_upstream(stack)
        process = open_pilothouse(stack, home, limits=not chosen.no_limits, durable=chosen.durable)
        ours = Target("pilothouse", PILOTHOUSE, model="default", key=OWNER_KEY)
        if chosen.soak:
            asyncio.run(soak(ours, process, chosen.soak))
            return
        targets = [Target("bare upstream", UPSTREAM), ours]
        if chosen.litellm:
            open_litellm(stack, chosen.litellm, home)
            targets.append(Target("litellm", LITELLM, key=OWNER_KEY))
        found = asyncio.run(compare(targets, chosen.rounds, chosen.seconds))
        report(found, targets)
        print(f"memory: {rss_mib(process):.0f} MiB; ledger rows by state: {json.dumps(ledger_rows(home))}")


if __name__ == "__main__":
    main()
