"""Reads server-sent events from bytes as they arrive, however the network cut them.

Takes what model servers send in practice: LF, CRLF, CR and mixtures, a byte order mark, comments, UTF-8 cut anywhere,
a last event without its blank line. Keeps only `data`: none of the wires we speak needs event names or ids.
"""

from typing import Final

from graphs.errors import UpstreamError

MAX_EVENT_BYTES: Final = 1 << 20  # the largest event seen from a vendor is a tool call of some 100 kB
_BOM: Final = b"\xef\xbb\xbf"


class SseParser:
    """Feed it bytes, get the data of the events they complete. Invalid UTF-8 becomes U+FFFD.

    A line or event above `max_event_bytes` raises UpstreamError, so that a hostile server cannot fill the memory.
    """

    __slots__ = ("_after_cr", "_buffer", "_data", "_data_bytes", "_max_bytes", "_started")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_event_bytes
        self._buffer = b""  # the unfinished line
        self._data: list[str] = []
        self._data_bytes = 0
        self._after_cr = False
        self._started = False

    def feed(self, chunk: bytes) -> list[str]:
        """The data of each event that `chunk` completes, in order."""
        chunk = self._skip(chunk)
        # A chunk without a line's end cannot complete a line; splitting what piles up again and again is quadratic.
        if b"\n" not in chunk and b"\r" not in chunk:
            self._buffer += chunk
            self._bound(len(self._buffer))
            return []
        # bytes.splitlines knows exactly the three line ends of the format: LF, CR and CRLF.
        lines = (self._buffer + chunk).splitlines(keepends=True)
        self._buffer = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        self._bound(len(self._buffer))
        return [data for line in lines if (data := self._take(line.rstrip(b"\r\n"))) is not None]

    def close(self) -> list[str]:
        """The data of an event that the end of the stream completes: many servers leave the last blank line out."""
        line, self._buffer = self._buffer, b""
        whole = [self._take(line) if line else None, self._take(b"")]
        return [data for data in whole if data is not None]

    def _skip(self, chunk: bytes) -> bytes:
        """Without what belongs to no line: the byte order mark, and the LF of a CRLF that was cut in two."""
        if not self._started:
            self._buffer += chunk
            if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
                return b""
            chunk, self._buffer, self._started = self._buffer.removeprefix(_BOM), b"", True
        if self._after_cr and chunk:
            chunk, self._after_cr = chunk.removeprefix(b"\n"), False
        if chunk.endswith(b"\r"):
            self._after_cr = True
        return chunk

    def _take(self, line: bytes) -> str | None:
        """One whole line; gives the event's data if it was the blank line that ends one."""
        self._bound(len(line))
        if not line:
            data, self._data, self._data_bytes = self._data, [], 0
            return "\n".join(data) or None  # an event of nothing is a ping, and the format drops it too
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data_bytes += len(value)
            self._bound(self._data_bytes)
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        return None

    def _bound(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise UpstreamError(f"the model server sent an event of more than {self._max_bytes} bytes")


class Frames:
    """Cuts a byte stream into the data of its events, as bytes.

    What model servers send nearly always, a line of data and a blank one, is cut where it stands; for the rest there
    is the full parser. `name` is the model's, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._parser: SseParser | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._parser is not None:
            return [data.strip().encode("utf-8", "surrogatepass") for data in self._parser.feed(chunk)]
        whole = self._rest + chunk
        *frames, rest = whole.split(b"\n\n")
        if b"\r" in whole or any(not frame.startswith(b"data: ") or b"\n" in frame for frame in frames):
            self._parser, self._rest = SseParser(), b""
            return self.feed(whole)
        if len(rest) > MAX_EVENT_BYTES:
            raise UpstreamError(f"{self._name} sent an event of more than {MAX_EVENT_BYTES} bytes")
        self._rest = rest
        return [frame[6:] for frame in frames]

    def close(self) -> list[bytes]:
        """What a stream without its last blank line still holds."""
        found = self.feed(b"\n\n") if self._rest else []
        if self._parser is not None:
            found += [data.strip().encode("utf-8", "surrogatepass") for data in self._parser.close()]
        return found
