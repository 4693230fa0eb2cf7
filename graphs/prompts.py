"""Prompts: versioned files of typed sections, rendered into messages within a token budget.

One TOML file a prompt and version under `graphs/prompts/`, named `<name>@<version>.toml`. Sections that the author
writes (system, developer, safety, format) may carry `{variables}`; sections that a run fills (history, passages,
tool_results, user) are data and are never scanned for variables. Missing and unknown variables are errors.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, get_args

from graphs.errors import Missing, PromptInvalid, PromptTooLong
from graphs.types import Message, Passage

SectionKind = Literal["system", "developer", "safety", "format", "history", "passages", "tool_results", "user"]
SECTION_KINDS: Final[tuple[SectionKind, ...]] = get_args(SectionKind)
