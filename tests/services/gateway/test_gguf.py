import struct
from pathlib import Path
from typing import Any

import pytest

from app.services.gateway.gguf import embedded_gguf, read_metadata, short_digest, token_counter
from app.services.gateway.tokens import estimate_tokens
from graphs.errors import Invalid

HANDBOOK = Path(__file__).parents[3] / "app" / "handbook"


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return read_metadata(embedded_gguf())


def test_the_embedded_weights_are_found_and_known_by_their_hash(metadata: dict[str, Any]) -> None:
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.context_length"] == 8_192
    assert len(metadata["tokenizer.ggml.tokens"]) == 49_152
    assert short_digest(embedded_gguf()) == "b179c9523d0e"


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"one")
    first = short_digest(path)
    path.write_bytes(b"other")
    assert short_digest(path) != first


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("Hello world, this is a test", [19556, 905, 28, 451, 314, 253, 1028]),
    ],
)
def test_tokens_are_counted_as_the_model_counts_them(metadata: dict[str, Any], text: str, tokens: list[int]) -> None:
    assert token_counter(metadata)(text) == len(tokens)


def test_digits_count_one_by_one(metadata: dict[str, Any]) -> None:
    assert token_counter(metadata)("2026") == 4


def test_the_estimate_stays_above_the_real_count_on_the_handbook(metadata: dict[str, Any]) -> None:
    count = token_counter(metadata)
    pages = [path.read_text() for path in sorted(HANDBOOK.rglob("*.md"))]
    pieces = [page[start : start + 700] for page in pages for start in range(0, len(page), 700)]
    assert len(pieces) > 20
    assert [piece for piece in pieces if estimate_tokens(piece) < count(piece)] == []


def test_an_unknown_tokenizer_is_estimated() -> None:
    assert token_counter({"tokenizer.ggml.model": "llama"}) is estimate_tokens


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nope",
        b"GGUF",
        b"<html></html>" * 9,
        b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60) + b"name",
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 4) + b"name" + struct.pack("<I", 77),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 4) + b"name" + struct.pack("<IIQ", 9, 4, 1 << 60),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 4) + b"name" + struct.pack("<IIQ", 9, 4, 9),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 4) + b"name" + struct.pack("<IIQ", 9, 9, 9) * 400,
    ],
    ids=range(12),
)
def test_a_file_that_is_no_gguf_is_invalid(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(Invalid) as raised:
        read_metadata(path)
    assert raised.value.field == "gguf_path"


def test_a_file_that_is_not_there_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        read_metadata(tmp_path / "none.gguf")
