"""A secret in a file that only its owner can read, made once however many processes start at the same time."""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4


def keep(path: Path, make: Callable[[], str]) -> str:
    """The secret in `path`; the first caller makes it. Mode 600, complete or absent at every moment."""
    if not path.exists():
        draft = _draft(path, make())
        try:
            # A link, unlike a rename, does not replace what another process made meanwhile.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    path.chmod(0o600)
    return path.read_text().strip()


def replace(path: Path, secret: str) -> None:
    """Make `secret` the content of `path`."""
    _draft(path, secret).replace(path)


def _draft(path: Path, secret: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return draft
