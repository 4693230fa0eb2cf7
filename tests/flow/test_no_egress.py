"""The product as it starts with nothing configured, where there is no network: it works, and does not even try."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow import errand

APART = ("unshare", "--net")
APART_AS_USER = ("unshare", "--net", "--map-root-user")
ATTEMPT = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
COUNTED = f"""
from tests.flow import errand
errand.raise_loopback()
try:
    {ATTEMPT}
except OSError:
    pass
print(errand.attempts()['Ip:OutNoRoutes'])
"""


@pytest.fixture(scope="module")
def apart() -> tuple[str, ...]:
    """The command that runs another in a network namespace of its own."""
    for command in (APART, APART_AS_USER) if shutil.which("unshare") else ():
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("this user can make no network namespace")


def test_an_attempt_is_counted(apart: tuple[str, ...]) -> None:
    told = subprocess.run([*apart, sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True)
    assert int(told.stdout) > 0


@pytest.mark.timeout(300)  # three questions to real models, and MLflow's first start
def test_l03_a_default_run_makes_no_outbound_connection(apart: tuple[str, ...], tmp_path: Path) -> None:
    command = [*apart, sys.executable, errand.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + (tmp_path / "server.log").read_text()
    told = json.loads(done.stdout)
    assert told["seen"] == {
        "console before": [302, 503],  # starting, then the way to the login; never a 404
        "answers": dict.fromkeys(("chat", "rag", "agent"), "completed"),
        "console": 200,
        "traces": len(errand.QUESTIONS),
    }
    assert set(told["attempts"].values()) == {0}, told["attempts"]
