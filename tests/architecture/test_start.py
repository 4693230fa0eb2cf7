"""The socket is open before anything heavy is loaded."""

import subprocess
import sys

HEAVY = (
    "langgraph",
    "langchain_core",
    "lancedb",
    "gradio",
    "mlflow",
    "ragas",
    "sqlalchemy",
    "onnxruntime",
    "numpy",
    "polars",
    "dbos",
)


def test_the_application_is_imported_without_the_libraries_that_take_seconds() -> None:
    code = f"import sys, app.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
