"""What a decision on a tool call is bound to: digests of the tool's definition and of the call itself.

Equal values give equal digests wherever they have been: keys in any order, tuples or lists, in a checkpoint or in a
database, which keeps no NaN.
"""

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from graphs.types import ToolProposal, ToolSpec


def definition_hash(spec: ToolSpec) -> str:
    """64 hex digits over all that a model and a person go by: name, description and schema."""
    return _digest([spec.name, spec.description, spec.parameters])


def call_hash(call: ToolProposal, definition: str, *, run_id: str, tenant_id: str, user_id: str) -> str:
    """64 hex digits over a call of a run for that user, its tool as `definition` has it, and its arguments.

    The call's id is in it, so that a decision on one call is none on another with the same arguments.
    """
    return _digest([tenant_id, user_id, run_id, call.call_id, call.name, definition, call.arguments])


def canonical(value: Any) -> str:
    """The one JSON text of a value, as two values are compared by."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def _digest(value: Any) -> str:
    return sha256(canonical(value).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
