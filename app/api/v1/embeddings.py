"""`POST /v1/embeddings`: vectors for texts, from whatever model of the gateway embeds."""

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final

import orjson

from app.api.v1.door import Asked, Whole
from app.api.v1.refusal import BadRequest, Unsupported
from app.config.load import RESERVED
from app.services.gateway.gateway import ModelGateway
from graphs.errors import Invalid

MAX_CHARS: Final = 2_000_000  # of all texts together: what 2,048 windows of 256 tokens hold


class Embeddings:
    """Answers requests for embeddings."""

    def __init__(self, gateway: ModelGateway) -> None:
        self._gateway = gateway

    async def __call__(self, asked: Asked) -> Whole:
        """Raises BadRequest, Unsupported, Invalid, and as the gateway does."""
        raw = asked.json
        if not isinstance(raw, dict):
            raise BadRequest("the body must be a JSON object")
        encoding, texts = _encoding(raw), _texts(raw.get("input"))
        embedded = await self._gateway.embed(texts, _model(raw), asked.payer)
        data = [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if encoding == "base64" else vector}
            for index, vector in enumerate(embedded.vectors)
        ]
        read = embedded.usage.input_tokens
        usage = {"prompt_tokens": read, "total_tokens": read}
        return Whole(orjson.dumps({"object": "list", "data": data, "model": embedded.model, "usage": usage}))


def _model(raw: dict[str, Any]) -> str | None:
    model = raw.get("model")
    if model is not None and (not isinstance(model, str) or not model or len(model) > 256):
        raise Invalid("model must be a name", field="model")
    if model is not None and model.startswith(RESERVED):
        raise Invalid("a graph answers questions and does not embed", field="model")
    return model


def _encoding(raw: dict[str, Any]) -> str:
    if raw.get("dimensions") is not None:
        raise Unsupported(
            "dimensions is not supported: a model's vectors have the length that they have", field="dimensions"
        )
    encoding = raw.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise Invalid("encoding_format must be float or base64", field="encoding_format")
    return encoding or "float"


def _texts(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise Invalid("input must be a text or a list of texts", field="input")
    if any(isinstance(text, int | list) for text in texts):
        raise Unsupported(
            "input must be texts: token numbers mean nothing without their tokenizer "
            "(in LangChain: check_embedding_ctx_length=False)",
            field="input",
        )
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise Invalid("each text must be a text that is not empty", field=f"input.{place}")
    if (size := sum(map(len, texts))) > MAX_CHARS:
        raise Invalid(f"the texts have {size} characters; {MAX_CHARS} are allowed", field="input")
    return texts


def _base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients decode them."""
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()
