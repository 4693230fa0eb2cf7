"""What access needs of the place where keys are kept. The store's `keys` is one; tests bring their own."""

from collections.abc import Collection
from typing import Protocol


class Key(Protocol):
    """A key that was found valid."""

    @property
    def key_id(self) -> str: ...

    @property
    def tenant_id(self) -> str: ...

    @property
    def user_id(self) -> str: ...

    @property
    def scopes(self) -> Collection[str]: ...

    @property
    def groups(self) -> Collection[str]: ...


class KeyBook(Protocol):
    """Keys by their secret and by their id."""

    async def verify(self, secret: str) -> Key | None:
        """The live key with this secret; None for a wrong, revoked or expired one."""
        ...

    async def find(self, key_id: str) -> Key | None:
        """The live key of this id as it is now; None for a revoked or expired one."""
        ...
