"""The process that takes traces out of MLflow again: `python -m app.unexport`.

It reads its orders as one line of JSON on stdin and prints how many traces it found. MLflow is imported here, never in
the API's process.
"""

import logging
import os
import sys

import orjson

from app.settings import quiet_libraries
from app.telemetry.logs import configure_logging
from app.telemetry.mlflow_erase import erase_traces


def main() -> None:
    quiet_libraries()
    os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"  # its own handlers would write plain text between our lines
    configure_logging()
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    sys.stdout.write(f"{erase_traces(**orjson.loads(sys.stdin.buffer.readline()))}\n")


if __name__ == "__main__":
    main()
