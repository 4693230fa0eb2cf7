"""Forms with files, within bounds that Starlette leaves open: UTF-8 alone, and what is read together is written so."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.api.errors import Refused


@asynccontextmanager
async def read_form(
    request: Request, *, max_files: int, max_fields: int, max_field_bytes: int
) -> AsyncIterator[FormData]:
    """A multipart form; its files are closed with the block. Raises Refused (400, 415)."""
    _check_charset(request.headers)
    async with aclosing(request.stream()) as stream:
        parser = _Parser(
            request.headers, stream, max_files=max_files, max_fields=max_fields, max_part_size=max_field_bytes
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise Refused(400, "malformed_request", error.message) from error
    try:
        yield form
    finally:
        await form.close()


class _Parser(MultiPartParser):
    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Starlette writes each piece by a turn of a thread; near-boundaries cut a file into pieces of six bytes."""
        super().on_part_data(data, start, end)
        waiting: list[tuple[Any, Any]] = self._file_parts_to_write
        if len(waiting) > 1 and waiting[-2][0] is waiting[-1][0]:
            part, more = waiting.pop()
            before = waiting[-1][1]
            joined = before if isinstance(before, bytearray) else bytearray(before)
            joined += more
            waiting[-1] = (part, joined)


def _check_charset(headers: Headers) -> None:
    """A form may name the codec of its texts; some of Python's take quadratic time, and one always fails."""
    charset = parse_options_header(headers.get("content-type", ""))[1].get(b"charset", b"utf-8")
    if charset.lower() not in {b"utf-8", b"utf8", b"us-ascii"}:
        raise Refused(415, "unsupported_media_type", "the texts of a form are UTF-8", field="Content-Type")
