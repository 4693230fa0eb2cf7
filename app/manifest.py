"""What a backup holds, as its manifest.json says: every file by size and hash, and which version wrote it.

It is written last, so a folder without one is no backup.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final, Self

from pydantic import TypeAdapter, ValidationError

from graphs.errors import Invalid, Missing

NAME: Final = "manifest.json"
FORMAT: Final = 1  # one more whenever an older version could not read the folder
_BLOCK_BYTES: Final = 1 << 20


class BackupDamaged(Invalid):
    """A file of the backup is not the one that was written."""

    code = "backup_damaged"


@dataclass(frozen=True, slots=True)
class Held:
    """A file of the backup."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`schema` is the store's, None where the backup has no store. `files` are by their path in the folder."""

    format: int
    product: str
    schema: str | None
    taken_at: datetime
    libraries: Mapping[str, str]
    not_covered: tuple[str, ...]
    files: Mapping[str, Held]

    @property
    def size_bytes(self) -> int:
        return sum(held.size_bytes for held in self.files.values())

    def write(self, folder: Path) -> None:
        with (folder / NAME).open("xb") as file:
            file.write(_ADAPTER.dump_json(self, indent=2))
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises Missing where there is no whole backup, Invalid for one of another format or with strange paths."""
        try:
            found = _ADAPTER.validate_json((folder / NAME).read_bytes())
        except FileNotFoundError:
            raise Missing(f"{folder} is no whole backup: it has no {NAME}") from None
        except ValidationError as error:
            raise Invalid(f"{folder / NAME} is not a manifest that this version reads") from error
        if found.format != FORMAT:
            raise Invalid(f"the backup has format {found.format}, this version reads {FORMAT}")
        for name in found.files:
            # Whoever hands us a backup must not choose where on this machine its files go.
            if PurePosixPath(name).parts[:1] not in (("home",), ("mlruns",)) or ".." in PurePosixPath(name).parts:
                raise Invalid(f"the manifest names {name!r}, which is no place of a backup")
        return cls(**{field: getattr(found, field) for field in cls.__slots__})


_ADAPTER: Final = TypeAdapter(Manifest)


def copied(source: Path, target: Path) -> Held:
    """Copy the file, mode 600; what was read is what the hash is of. It is on the disk when this returns."""
    digest, size_bytes = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as to:
        while block := read.read(_BLOCK_BYTES):
            digest.update(block)
            size_bytes += to.write(block)
        to.flush()
        os.fsync(to.fileno())
    return Held(size_bytes, digest.hexdigest())


def measured(path: Path) -> Held:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return Held(path.stat().st_size, digest.hexdigest())
