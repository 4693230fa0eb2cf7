"""MLflow's own UI, on loopback, over this installation's traces and evaluations.

It has no login of its own, so it never listens on another address; whoever may log in to this machine may read it.
"""

import os
import subprocess
import sys
from pathlib import Path


def mlflow_server(tracking_uri: str, artifacts: Path, port: int) -> int:
    """Run the server until it is stopped; its exit code."""
    artifacts.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", tracking_uri),
        *("--default-artifact-root", str(artifacts.resolve())),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        # Without this a page that resolves its own name to 127.0.0.1 could read everything.
        *("--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"),
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - our own arguments
    except KeyboardInterrupt:
        return 0
