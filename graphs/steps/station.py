"""Times a node as a station of the run, so that nodes themselves write no telemetry."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime

from graphs.context import RunContext

S = TypeVar("S")
Node = Callable[[S, Runtime[RunContext]], Awaitable[Mapping[str, Any]]]
