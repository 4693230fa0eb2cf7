"""The zip archive that an Office file is, looked over before a reader unpacks it. Runs in the child process."""

import io
from zipfile import BadZipFile, ZipFile

from graphs.errors import DocumentUnreadable

LIMIT_UNPACKED_BYTES = 256 << 20
LIMIT_PARTS = 10_000
_ENCRYPTED = 0x1


def checked_archive(data: bytes) -> io.BytesIO:
    """The same bytes as a file. Raises DocumentUnreadable: cut, locked, or a bomb by what its directory declares.

    A directory that lies is held by the memory limit of the process.
    """
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
    except (BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DocumentUnreadable("the Office file is broken or cut short", field="file") from error
    if any(part.flag_bits & _ENCRYPTED for part in parts):
        raise DocumentUnreadable("the Office file is locked with a password", field="file")
    unpacked = sum(part.file_size for part in parts)
    if unpacked > LIMIT_UNPACKED_BYTES or len(parts) > LIMIT_PARTS:
        raise DocumentUnreadable(
            f"the Office file unpacks to {unpacked >> 20} MiB in {len(parts)} parts; "
            f"at most {LIMIT_UNPACKED_BYTES >> 20} MiB in {LIMIT_PARTS} parts are read",
            field="file",
        )
    return io.BytesIO(data)
