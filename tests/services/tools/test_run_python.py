"""Model-written Python: T15 of the hardening list, a program that tries to get out."""

import asyncio
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.config.load import ConfigInvalid, parse
from app.confined import lacking
from app.services.tools.builtins import builtin_faults
from app.services.tools.run_python import RunPython, RunPythonOptions
from app.services.tools.tool import ToolCall
from graphs.errors import ToolRefused

pytestmark = pytest.mark.skipif(bool(lacking()), reason=f"no program can be kept in here: {lacking()}")


async def run(code: str, **options: Any) -> str:
    tool = RunPython(RunPythonOptions(**{"accepted": True} | options))
    return (await tool.run(ToolCall({"code": code}, "acme", "ada", "r1", "r1:c1"))).content


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def folders() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("pilothouse-python-")}


async def test_a_program_computes_with_the_standard_library() -> None:
    said = await run(
        "import asyncio, decimal, json, re, sqlite3, statistics, threading, zoneinfo\n"
        "from datetime import datetime\n"
        "open('kept.txt', 'w').write('on disk')\n"
        "seen = []\n"
        "thread = threading.Thread(target=lambda: seen.append(open('kept.txt').read()))\n"
        "thread.start(); thread.join(); asyncio.run(asyncio.sleep(0))\n"
        "print(statistics.mean([1, 2, 6]), seen, datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')))\n"
        "print(sqlite3.connect('x.db').execute('select 6 * 7').fetchone(), 'Grüße')\n"
    )
    assert said == "3 ['on disk'] 2026-07-01 00:00:00+02:00\n(42,) Grüße"


async def test_what_went_wrong_is_told_without_our_frames() -> None:
    said = await run("def halve(n):\n    return n / 0\nhalve(1)")
    assert "line 3" in said
    assert said.endswith("ZeroDivisionError: division by zero\n[the program failed with 1]")
    assert "python_child" not in said
    assert await run("pass") == "[the program printed nothing]"
    assert "SyntaxError" in await run("print(")
    assert await run("import sys; print('x'); sys.exit(3)") == "x\n[the program failed with 3]"


TRY = """
def tried(name, act):
    try:
        print(name, 'GOT', act())
    except Exception as error:
        print(name, type(error).__name__)
"""


async def test_t15_a_program_sees_neither_our_environment_nor_our_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILOTHOUSE_CANARY", "canary-in-the-environment")
    secret = tmp_path / "owner.key"
    secret.write_text("canary-in-a-file")
    said = await run(
        f"{TRY}import glob, os, sys\n"
        f"tried('key', lambda: open({str(secret)!r}).read())\n"
        f"tried('parent', lambda: open('/proc/{os.getpid()}/environ').read())\n"
        "tried('own', lambda: open('/proc/self/environ').read())\n"
        "tried('memory', lambda: open(f'/proc/{os.getppid()}/mem', 'rb').read(1))\n"
        "tried('passwd', lambda: open('/etc/passwd').read())\n"
        f"tried('ours', lambda: open({__file__!r}).read())\n"
        "tried('import', lambda: __import__('app.settings'))\n"
        "tried('installed', lambda: __import__('numpy'))\n"
        "tried('root', lambda: os.listdir('/'))\n"
        "tried('link', lambda: os.symlink('/etc/passwd', 'link'))\n"
        f"tried('write', lambda: open({str(tmp_path / 'new')!r}, 'w'))\n"
        f"tried('chmod', lambda: os.chmod({str(secret)!r}, 0o777))\n"
        f"tried('truncate', lambda: os.truncate({str(secret)!r}, 0))\n"
        f"tried('remove', lambda: os.remove({str(secret)!r}))\n"
        "print(sorted(os.environ), sys.argv, [path for path in sys.path if 'site-packages' in path])\n"
    )
    assert "canary" not in said
    assert "GOT" not in said
    assert said.splitlines()[-1] in {"[] ['program.py'] []", "['LC_CTYPE'] ['program.py'] []"}
    assert secret.read_text() == "canary-in-a-file"
    assert os.listdir(tmp_path) == [secret.name]


async def test_t15_a_program_starts_no_process_and_none_outlives_it() -> None:
    before = children()
    said = await run(
        f"{TRY}import os, subprocess, multiprocessing\n"
        "tried('fork', os.fork)\n"
        "os.system('touch shell-was-here')\n"
        "tried('spawn', lambda: os.posix_spawn('/bin/true', ['true'], {}))\n"
        "tried('run', lambda: subprocess.run(['/bin/true'], start_new_session=True))\n"
        "tried('exec', lambda: os.execv('/bin/true', ['true']))\n"
        "tried('pool', lambda: multiprocessing.Process(target=print).start())\n"
        f"tried('kill', lambda: os.kill({os.getpid()}, 0))\n"
        "tried('session', os.setsid)\n"
        "print(os.listdir())\n"
    )
    assert said.count("PermissionError\n") == 7
    assert said.endswith("\n[]")
    assert children() == before


async def test_t15_a_program_reaches_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as named:
        named.bind("\0pilothouse-canary")
        named.listen()
        port = listening.getsockname()[1]
        said = await run(
            f"{TRY}import ctypes, socket\n"
            f"tried('tcp', lambda: socket.create_connection(('127.0.0.1', {port}), 1))\n"
            "tried('udp', lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))\n"
            "tried('unix', lambda: socket.socket(socket.AF_UNIX).connect('\\0pilothouse-canary'))\n"
            "tried('raw', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "print(libc.syscall(41, 2, 1, 0), libc.syscall(425, 8, None))\n"
            "print(libc.unshare(0x10000000), libc.syscall(99999))\n"
        )
        assert "GOT" not in said
        assert said.endswith("-1 -1\n-1 -1")


@pytest.mark.parametrize(
    ("code", "options", "told"),
    [
        ("while True: pass", {"cpu_s": 1}, "more than 1 s of computing"),
        ("x = bytearray(10 ** 10)", {}, "MemoryError"),
        ("x = []\nwhile True: x.append('a' * 10 ** 6)", {}, "MemoryError"),
        ("while True: print('x' * 10_000)", {"max_chars": 500}, "[cut]"),
        ("open('big', 'wb').write(b'x' * (20 << 20))", {}, "File too large"),
        ("import threading\nfor _ in range(10_000):\n    threading.Thread(target=threading.Event().wait).start()",
         {"cpu_s": 2}, "can't start new thread"),
        ("files = [open(str(n), 'w') for n in range(1_000)]", {}, "Too many open files"),
    ],
)  # fmt: skip
async def test_t15_a_program_that_takes_too_much_is_ended(code: str, options: dict[str, Any], told: str) -> None:
    before, began = children(), time.monotonic()
    try:
        said = await run(code, timeout_s=10, **options)
    except ToolRefused as error:
        said = str(error)
    assert told in said or "longer than" in said
    assert len(said) < 20_000
    assert time.monotonic() - began < 60
    assert children() == before


@pytest.mark.parametrize("each", ["os.urandom(4 << 20)", "b''"])
async def test_t15_a_program_that_fills_the_disk_is_ended_and_cleared_away(each: str) -> None:
    before = folders()
    code = f"import os\nfor n in range(1_000_000):\n    open(str(n), 'wb').write({each})"
    assert "too much memory, disk or output" in await run(code, disk_mb=16, cpu_s=60, timeout_s=60)
    assert folders() == before


async def test_t15_a_program_makes_no_folders_in_folders_that_nobody_could_remove() -> None:
    said = await run(f"{TRY}import os\ntried('folder', lambda: os.mkdir('d') or 'made')\nprint(os.listdir())")
    assert said == "folder PermissionError\n[]"


async def test_t15_a_program_that_sleeps_is_ended_with_its_call() -> None:
    before = children()
    with pytest.raises(ToolRefused, match=r"longer than 0\.5 s"):
        await run("import time; time.sleep(60)", timeout_s=0.5)
    running = asyncio.create_task(run("import time; time.sleep(60)", timeout_s=60))
    while children() == before:
        await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.wait({running})
    assert children() == before


@pytest.mark.parametrize(("options", "fault"), [("{}", "lets them out"), ("{accepted: true, cpu_s: 0}", "at least 1")])
def test_t15_the_file_is_not_taken_before_its_risk_is(options: str, fault: str) -> None:
    text = f"tools: {{run_python: {{kind: builtin, options: {options}}}}}"
    with pytest.raises(ConfigInvalid, match=fault):
        parse(text, {}, checks=(builtin_faults,))


def test_t15_who_turns_it_on_is_told_what_it_does_not_protect_from() -> None:
    with pytest.raises(ValidationError, match="a fault of the kernel or of the interpreter lets them out"):
        RunPythonOptions()
    with (
        pytest.raises(ValidationError, match="it cannot be kept in on this machine: no Landlock"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("app.services.tools.run_python.lacking", lambda: "no Landlock")
        RunPythonOptions(accepted=True)
