"""MLflow's own server knows no users: nothing of it is at our port, and it listens on this machine alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app as cli
from app.telemetry.server import mlflow_server

# In a process of its own: importing MLflow's server here would bring its warnings, and its patches of what it finds.
LISTING = """
import json
from mlflow.server.handlers import get_endpoints
print(json.dumps([[methods[0], path] for path, _, methods in get_endpoints()]))
"""
# Beside the table of its handlers: what its FastAPI half serves.
MORE = ["/v1/traces", "/ajax-api/3.0/jobs", "/ajax-api/3.0/jobs/search", "/get-artifact", "/graphql", "/version"]


def routes_of_mlflow() -> set[tuple[str, str]]:
    listed = subprocess.run([sys.executable, "-W", "ignore", "-c", LISTING], capture_output=True, text=True, check=True)
    found = {(method, path) for method, path in json.loads(listed.stdout.splitlines()[-1])}
    return found | {("POST", path) for path in MORE}


def test_a12_no_route_of_mlflow_is_at_our_port(nobody: httpx.Client, ann: httpx.Client) -> None:
    routes = sorted(routes_of_mlflow())
    assert len(routes) > 300
    for method, path in routes:
        assert nobody.request(method, path, json={}).status_code == 401, path
        refused = ann.request(method, path, json={})
        assert refused.status_code in {404, 405}, (method, path)
        assert "mlflow" not in refused.text.lower(), path


def test_a12_mlflow_listens_on_loopback_for_its_own_name_and_runs_no_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment would have it do."""
    started: dict[str, Any] = {}

    def run(command: list[str], *, env: dict[str, str], check: bool) -> subprocess.CompletedProcess[str]:
        started.update(command=command, env=env)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("MLFLOW_HOST", "0.0.0.0")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "true")
    assert mlflow_server("sqlite:///x.db", tmp_path / "artifacts", 5999) == 0
    command = started["command"]
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert [command[command.index(name) + 1] for name in ("--host", "--allowed-hosts")] == [
        "127.0.0.1",
        "127.0.0.1:5999,localhost:5999",
    ]
    assert started["env"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_a12_nobody_can_ask_for_a_wider_address() -> None:
    refused = CliRunner().invoke(cli, ["mlflow", "--host", "0.0.0.0"])
    assert refused.exit_code == 2
