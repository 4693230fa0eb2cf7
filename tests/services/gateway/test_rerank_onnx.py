"""A cross-encoder from a folder, on a model that is small enough to be written here byte by byte."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from app.services.gateway.embedding import embedding_info
from app.services.gateway.rerank_onnx import OnnxReranker
from graphs.errors import Invalid, UpstreamError

INFO = embedding_info("local", "onnx", 512)
WORDS = {"[UNK]": 0, "bad": 1, "fair": 2, "good": 3}


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protocol buffer: a message or text, or a small number."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def tensor(name: bytes, kind: int, *dimensions: bytes | int) -> bytes:
    sizes = b"".join(field(1, field(2, size) if isinstance(size, bytes) else field(1, size)) for size in dimensions)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, sizes)))


def node(source: bytes, result: bytes, kind: bytes, attribute: bytes) -> bytes:
    return field(1, source) + field(2, result) + field(4, kind) + field(5, attribute)


def largest_id() -> bytes:
    """ONNX: the largest token id of each row as its logit."""
    to_float = node(b"input_ids", b"floats", b"Cast", field(1, b"to") + field(3, 1) + field(20, 2))
    largest = node(b"floats", b"logits", b"ReduceMax", field(1, b"axes") + field(8, 1) + field(20, 7))
    ends = field(11, tensor(b"input_ids", 7, b"n", b"l")) + field(12, tensor(b"logits", 1, b"n", 1))
    graph = field(1, to_float) + field(1, largest) + field(2, b"largest") + ends
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(largest_id())
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


async def test_pairs_are_scored_in_the_order_of_the_texts_whatever_their_lengths(folder: Path) -> None:
    model = await OnnxReranker.open(INFO, folder)
    texts = ["bad " * 9, "good", "fair \ud800", *["bad"] * 20]
    reranked = await model.rerank("bad", texts)
    assert len(reranked.scores) == len(texts)
    assert all(0 <= score <= 1 for score in reranked.scores)
    first, second, third, *others = reranked.scores
    assert second > third > first == others[0]
    assert reranked.usage.input_tokens >= 2 * len(texts)
    await model.close()
    with pytest.raises(UpstreamError):
        await model.rerank("bad", ["good"])


@pytest.mark.parametrize("broken", ["model.onnx", "tokenizer.json"])
def test_a_folder_without_a_cross_encoder_is_named_when_it_is_opened(folder: Path, broken: str) -> None:
    path = next(folder.rglob(broken))
    path.write_bytes(b"nothing")
    with pytest.raises(Invalid) as caught:
        OnnxReranker(INFO, folder)
    path.unlink()
    with pytest.raises(Invalid) as caught:
        OnnxReranker(INFO, folder)
    assert caught.value.field == "path"
