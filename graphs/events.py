"""What nodes write to the graph's stream (`stream_mode="custom"`) while they run.

The runner numbers these events and adds its own (run.started, approval.required, run.completed, run.failed).
"""

from dataclasses import dataclass

from graphs.types import Citation, Passage, Ruling, SentenceSupport, ToolProposal, ToolResult


@dataclass(frozen=True, slots=True)
class Retrieved:
    passages: tuple[Passage, ...]
    index_version: str


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the answer that has passed the output guard; it will not be taken back."""

    text: str


@dataclass(frozen=True, slots=True)
class Continued:
    """The answer broke off here, and `model` goes on with it."""

    model: str


@dataclass(frozen=True, slots=True)
class Proposed:
    proposal: ToolProposal
    ruling: Ruling


@dataclass(frozen=True, slots=True)
class Ran:
    result: ToolResult


@dataclass(frozen=True, slots=True)
class Validated:
    citations: tuple[Citation, ...]
    sentences: tuple[SentenceSupport, ...]
    validation: str


Event = Retrieved | Said | Continued | Proposed | Ran | Validated
