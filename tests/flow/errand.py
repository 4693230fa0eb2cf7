"""Run alone in an empty network namespace: starts the product, uses it, and prints what the kernel counted as JSON.

The kernel counts for every process and every library, native code included: a packet to any address but loopback has
no route there, and a look-up at a loopback resolver meets a port that nobody listens on.
"""

import fcntl
import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

QUESTIONS = (
    ("chat", "Say hello."),
    ("rag", "Which variable sets the folder of all state?"),
    ("agent", "What is 12 * 7?"),
)
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
PORT = 8000
WAIT_S = 200.0


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


def attempts() -> dict[str, int]:
    """Packets that had nowhere to go since the namespace was made, by the kernel's counter."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    found = {
        f"{names[0]}{name}": int(value)
        for names, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    counted = {name: found[name] for name in ("Ip:OutNoRoutes", "Udp:NoPorts")}
    return counted | {name: int(six.get(name, 0)) for name in ("Ip6OutNoRoutes", "Udp6NoPorts")}


def until(holds: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if server.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"the server ended with {server.returncode}, or took too long")
        time.sleep(0.2)


def use(server: subprocess.Popen[bytes], home: Path, mlruns: Path) -> dict[str, Any]:
    """Wait for the server, then do what a first visitor does; the status of each run, and what was seen besides."""
    browser = {"Accept": "text/html"}
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=WAIT_S, trust_env=False) as client:
        before: set[int] = set()

        def ready() -> bool:
            try:
                front = client.get("/console", headers=browser).status_code
                before.add(front)
                # Signing in is the last that comes: by then API and console are there.
                return front == 302 and client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        until(ready, server)
        client.headers["X-API-Key"] = (home / "owner.key").read_text().strip()
        answers = {
            mode: client.post("/api/ai/chat", json={"mode": mode, "message": message}).json()["status"]
            for mode, message in QUESTIONS
        }
        page = client.get("/console/", headers=browser)
        until(lambda: exported(mlruns) == len(QUESTIONS), server)
        return {
            "console before": sorted(before),
            "answers": answers,
            "console": page.status_code,
            "traces": exported(mlruns),
        }


def exported(mlruns: Path) -> int:
    if not (mlruns / "mlflow.db").exists():
        return 0
    with closing(sqlite3.connect(mlruns / "mlflow.db")) as database:
        try:
            return int(database.execute("select count(*) from trace_info").fetchone()[0])
        except sqlite3.OperationalError:  # MLflow is still making its tables
            return 0


def main(folder: Path) -> None:
    raise_loopback()
    home, mlruns = folder / "var", folder / "mlruns"
    own = {"PILOTHOUSE_HOME": str(home), "PILOTHOUSE_MLRUNS": str(mlruns), "HOME": str(folder), "PORT": str(PORT)}
    command = [str(Path(sys.executable).with_name("pilothouse")), "serve"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | own, cwd=folder, stdout=log, stderr=log)
        try:
            seen = use(server, home, mlruns)
        finally:
            server.terminate()
            code = server.wait(30)
    print(json.dumps({"seen": seen, "exit": code, "attempts": attempts()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
