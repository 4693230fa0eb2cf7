"""Forms that would have the server do a million small things."""

from typing import Any

import pytest
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from app.api.errors import Refused
from app.api.forms import read_form

HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
READ_BYTES = 65_536


async def read(body: bytes, kind: str = "multipart/form-data; boundary=x") -> tuple[FormData, bytes]:
    """The form and the content of its file, after a body that comes as sockets give it."""
    pieces = [body[at : at + READ_BYTES] for at in range(0, len(body), READ_BYTES)]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    request = Request({"type": "http", "headers": [(b"content-type", kind.encode())]}, receive)
    async with read_form(request, max_files=2, max_fields=2, max_field_bytes=100) as form:
        file = form.get("file")
        return form, await file.read() if isinstance(file, UploadFile) else b""


async def test_v06_what_is_read_together_is_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each near-boundary ends a piece for the parser, and each write is a turn of a thread."""
    writes = 0
    write = UploadFile.write

    async def counted(self: UploadFile, data: bytes) -> None:
        nonlocal writes
        writes += 1
        await write(self, data)

    monkeypatch.setattr(UploadFile, "write", counted)
    content = b"\r\n--xy" * 300_000
    form, told = await read(HEAD + content + b"\r\n--x--")
    assert told == content
    assert list(form) == ["file"]
    assert writes <= len(content) // READ_BYTES + 2


async def test_files_and_fields_keep_their_own_content() -> None:
    field = b'\r\n--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nsecond'
    form, told = await read(HEAD + b"first\r\n--xbut no end" + field + b"\r\n--x--")
    assert (told, form["note"]) == (b"first\r\n--xbut no end", "second")


@pytest.mark.parametrize("charset", ["punycode", "idna", "undefined", "utf-16", "rot13"])
async def test_v03_texts_are_utf8_whatever_a_form_says(charset: str) -> None:
    with pytest.raises(Refused) as refused:
        await read(HEAD + b"\r\n--x--", f"multipart/form-data; boundary=x; charset={charset}")
    assert refused.value.status_code == 415
