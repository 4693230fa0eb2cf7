# `make run` and `make test` do all of the set-up themselves: Python 3.11 and make are enough.
PYTHON ?= python3
UV := .venv/bin/uv
UV_VERSION := 0.13.9
export UV_PROJECT_ENVIRONMENT := .venv
export UV_NO_PROGRESS ?= 1
# Without compiled bytecode every start pays seconds of compiling.
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check setup format lint types imports tests notebooks evals mlflow clean

run: setup
	.venv/bin/pilothouse serve

test: setup tests

check: setup lint types imports tests notebooks

setup: .venv/.ready

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.ready: pyproject.toml uv.lock | .venv/bin/uv
	$(UV) sync --frozen
	@touch $@

format: setup
	.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

lint:
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

types:
	.venv/bin/mypy

imports:
	.venv/bin/lint-imports

tests:
	MALLOC_ARENA_MAX=2 .venv/bin/pytest -n 3 --dist loadfile

notebooks:
	.venv/bin/pytest notebooks

evals: setup
	.venv/bin/pilothouse eval

# MLflow's own UI on loopback; job execution stays off.
mlflow: setup
	.venv/bin/pilothouse mlflow

clean:
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis
