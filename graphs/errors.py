"""The tree of failures, by what the receiver should do.

`kind` decides the HTTP status, a job's retry, the eval's category and the console's tone; `code` never changes once
published. Messages name values that the caller sent or may know, never contents of prompts, keys or documents.
"""

from typing import ClassVar, Literal

from graphs.types import Usage

Kind = Literal["invalid", "denied", "missing", "conflict", "exhausted", "upstream", "internal"]


class PilothouseError(Exception):
    """Base of every failure that may reach a caller.

    `field` names the offending input where there is one; `retry_after_s` is set where waiting helps.
    """

    kind: ClassVar[Kind] = "internal"
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class Invalid(PilothouseError):
    """The input can be mended by its sender."""

    kind, code = "invalid", "invalid_input"


class PromptInvalid(Invalid):
    """A prompt file or its variables do not fit together."""

    code = "prompt_invalid"


class PromptTooLong(Invalid):
    """What must be in the prompt does not fit the model's context window."""

    code = "prompt_too_long"


class TooLarge(Invalid):
    """The input is over a size limit; HTTP 413."""

    code = "too_large"


class DocumentUnreadable(Invalid):
    """The document is broken, encrypted, empty, or of a type that is not read."""

    code = "document_unreadable"


class Unauthenticated(PilothouseError):
    """No credential, or one that does not hold; HTTP 401."""

    kind, code = "denied", "unauthenticated"


class Forbidden(PilothouseError):
    """A valid credential without the right."""

    kind, code = "denied", "forbidden"


class Blocked(PilothouseError):
    """A guard stopped the run."""

    kind, code = "denied", "blocked"


class Missing(PilothouseError):
    """No such thing, or none that this caller may know of."""

    kind, code = "missing", "not_found"


class Conflict(PilothouseError):
    """The thing is not in the state that the call needs."""

    kind, code = "conflict", "conflict"


class GraphChanged(Conflict):
    """The run waited, and what would go on with it by now is another version of its graph."""

    code = "graph_changed"


class DocumentTaken(Conflict):
    """The id is that of a document which its writer does not see, and so may not write over."""

    code = "document_taken"


class QuotaExhausted(PilothouseError):
    """A limit on rate or spend is reached."""

    kind, code = "exhausted", "quota_exhausted"


class UpstreamError(PilothouseError):
    """A model server or another service failed, answered garbage, or broke off.

    `usage` is what a model server had told of it by then; it bills that, whatever became of the answer.
    """

    kind, code = "upstream", "upstream_error"
    usage: Usage | None = None


class UpstreamTimeout(UpstreamError):
    """It did not answer in time."""

    code = "upstream_timeout"


class UpstreamRejected(UpstreamError):
    """It refused the call itself (credentials, model name, arguments): retrying the same call cannot help."""

    code = "upstream_rejected"


class AnswerNotValid(UpstreamError):
    """The model's answer does not satisfy the schema that was asked for, and mending it did not help."""

    code = "answer_not_valid"


class UpstreamUnauthorized(UpstreamRejected):
    """It does not accept our credential: nothing is wrong with the call, and an operator has to act."""

    code = "upstream_unauthorized"


class UpstreamTooLong(UpstreamRejected):
    """The prompt is longer than the model's window; a larger model may take it."""

    code = "upstream_too_long"


class UpstreamNotFound(UpstreamRejected):
    """The server does not know the model under that name."""

    code = "upstream_not_found"


class UpstreamRateLimited(UpstreamError):
    """It asks to wait."""

    code = "upstream_rate_limited"


class Cancelled(PilothouseError):
    """The caller, or nobody listening any more, stopped the run."""

    kind, code = "conflict", "cancelled"


class Interrupted(PilothouseError):
    """The process ended while the run was in flight."""

    kind, code = "internal", "interrupted"


class ToolRetry(Exception):
    """Told to the model: the arguments can be mended."""


class ToolRefused(Exception):
    """Told to the model: final, do not try again."""
