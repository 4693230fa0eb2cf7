from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.gateway.sse import SseParser
from graphs.errors import UpstreamError

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
TEXTS = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), min_size=1, max_size=30)


def read(*pieces: bytes) -> list[str]:
    parser = SseParser()
    return [data for piece in pieces for data in parser.feed(piece)] + parser.close()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0), max_size=8))
def test_any_bytes_cut_anywhere_give_the_same_events(stream: bytes, places: list[int]) -> None:
    assert read(*cut(stream, places)) == read(stream)


@given(
    st.lists(st.tuples(TEXTS, LINE_ENDS, LINE_ENDS), max_size=6),
    st.lists(st.integers(min_value=0), max_size=12),
    st.booleans(),
)
def test_every_event_arrives_whatever_its_line_ends_and_cuts(
    told: list[tuple[str, bytes, bytes]], places: list[int], marked: bool
) -> None:
    # A CR directly before an LF would be one line end, not two.
    events = [(text, end, blank) for text, end, blank in told if not (end == b"\r" and blank == b"\n")]
    stream = b"".join(b": ping" + end + b"data: " + text.encode() + end + blank for text, end, blank in events)
    assert read(*cut((b"\xef\xbb\xbf" if marked else b"") + stream, places)) == [text for text, _, _ in events]


def test_every_single_byte_at_a_time_gives_the_same_events() -> None:
    stream = "\ufeffdata: zwölf\r\n\r\n: ping\n\ndata: 鍵\rdata: two\r\rdata: 🔑\n\n".encode()
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == ["zwölf", "鍵\ntwo", "🔑"]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"event: message\nid: 7\nretry: 10\ndata: a\n\n", ["a"]),
        (b": comment\n\n:\n\ndata: a\n\n", ["a"]),
        (b"data: a", ["a"]),
        (b"data: a\n", ["a"]),
        (b"data\n\ndata:\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: \xff\n\n", ["\ufffd"]),
        (b"dataa: a\n\nxdata: b\n\n", []),
        (b"", []),
        (b"\xef\xbb", []),
    ],
)
def test_what_servers_send_is_read(stream: bytes, data: list[str]) -> None:
    assert read(stream) == data


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 90, b"x" * 90, b"data: " + b"x" * 90 + b"\n"])
def test_an_event_without_end_is_refused_before_it_fills_the_memory(piece: bytes) -> None:
    parser = SseParser(max_event_bytes=200)
    parser.feed(piece)
    parser.feed(piece)
    with pytest.raises(UpstreamError, match="more than 200 bytes"):
        parser.feed(piece)
