"""Embeddings through the real `openai` client, unmodified."""

from typing import Any

import httpx
import openai
import pytest

from tests.api.served import Served
from tests.api.v1.conftest import openai_client
from tests.api.v1.upstream import Upstream


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_texts_become_vectors_in_their_order(client: openai.OpenAI, lab: Upstream, encoding: Any) -> None:
    given = {} if encoding is None else {"encoding_format": encoding}  # the client asks for base64 itself, and decodes
    told = client.embeddings.create(model="vectors", input=["a", "bcd"], **given)
    vectors: list[Any] = [item.embedding for item in told.data]
    if encoding == "base64":
        assert vectors == ["AACAPwAAAD8AAIC+", "AABAQAAAAD8AAIC+"]
    else:
        assert vectors == [[1.0, 0.5, -0.25], [3.0, 0.5, -0.25]]
    assert [item.index for item in told.data] == [0, 1]
    assert told.usage.prompt_tokens == told.usage.total_tokens == 6


def test_without_a_model_the_embedded_one_answers(http: httpx.Client) -> None:
    told = http.post("/v1/embeddings", json={"input": "A key is revoked."}).json()
    assert told["model"] == "all-minilm-l6-v2"
    assert len(told["data"][0]["embedding"]) == 384
    assert told["usage"]["prompt_tokens"] > 3


@pytest.mark.parametrize(
    ("given", "status", "field"),
    [
        ({"input": []}, 422, "input"),
        ({"input": ""}, 422, "input.0"),
        ({"input": None}, 422, "input"),
        ({"input": {"a": 1}}, 422, "input"),
        ({"input": ["a", None]}, 422, "input.1"),
        ({"input": ["a"] * 2_049}, 422, "input"),
        ({"input": ["word " * 1_000] * 500}, 422, "input"),
        ({"input": [1, 2, 3]}, 400, "input"),
        ({"input": [[1, 2], [3]]}, 400, "input"),
        ({"dimensions": 2}, 400, "dimensions"),
        ({"encoding_format": "hex"}, 422, "encoding_format"),
        ({"model": 5}, 422, "model"),
        ({"model": "pilothouse/rag"}, 422, "model"),
        ({"model": "big"}, 422, "model"),
        ({"model": "nothing"}, 404, "model"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(http: httpx.Client, given: Any, status: int, field: str) -> None:
    answer = http.post("/v1/embeddings", json={"model": "vectors", "input": "a"} | given)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, field)


def test_a_tenant_embeds_with_its_own_models_only(door: Served) -> None:
    with openai_client(door, "nell") as client, pytest.raises(openai.PermissionDeniedError):
        client.embeddings.create(model="vectors", input="a")
