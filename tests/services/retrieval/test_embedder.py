from pathlib import Path

import pytest

from app.services.retrieval.embedder import LIMIT_TOKENS, MiniLmEmbedder, ModelDamaged


def test_l02_weights_with_another_hash_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not the published weights")
    with pytest.raises(ModelDamaged, match="sha256"):
        MiniLmEmbedder(weights=path)


def test_absent_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelDamaged, match="absent"):
        MiniLmEmbedder(weights=tmp_path / "model.onnx")


def test_long_texts_are_cut_at_the_models_length(embedder: MiniLmEmbedder) -> None:
    assert embedder.count_tokens("word " * 10_000) == LIMIT_TOKENS


async def test_scripts_get_the_same_vectors_without_a_loop(embedder: MiniLmEmbedder) -> None:
    texts = ["one", "two words", "three words here"]
    assert (embedder.embed_now(texts) == await embedder.embed(texts)).all()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("where does the pilot board", True),
        ("où est la clé", True),
        ("429", True),
        ("引水员在哪里登船", False),
        ("где лоцман", False),
        ("NFL 的哪支球队", False),
    ],
)
def test_it_says_which_scripts_it_reads(embedder: MiniLmEmbedder, text: str, read: bool) -> None:
    assert embedder.reads(text) is read
