"""What a key may be for."""

from typing import Final, Literal, get_args

Scope = Literal["owner", "chat", "documents", "approvals", "runs"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
