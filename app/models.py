"""Opens the models that settings and configuration name, and puts them behind one gateway.

The embedded ones are always there. A model of the environment (`PILOTHOUSE_OPENAI_MODEL`, `PILOTHOUSE_GGUF_PATH`) comes
before them, and a configuration file with models or routes before both.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis

from app.buckets import Bucket
from app.config.load import CANNOT, ConfigInvalid, Fault, load
from app.config.price import FREE, UNPRICED, Price, configured, known, listed
from app.config.schema import Config, ModelConfig, ProviderConfig, RouteConfig
from app.sealing import open_vault
from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.answers import MemoryAnswers, RedisAnswers
from app.services.gateway.cache import Cache
from app.services.gateway.embedding import MINILM_NAME, MiniLmEmbeddings, embedding_info
from app.services.gateway.embedding_onnx import OnnxEmbeddings
from app.services.gateway.embedding_openai import OpenAiEmbeddings
from app.services.gateway.extractive import ExtractiveAnswerer
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.kept import Keeping
from app.services.gateway.llamacpp import LlamaCppEmbeddings, LlamaCppProvider
from app.services.gateway.openai import OpenAiProvider
from app.services.gateway.ports import Desk
from app.services.gateway.provider import Provider
from app.services.gateway.recover import Recovery
from app.services.gateway.rerank_http import HttpReranker
from app.services.gateway.rerank_onnx import OnnxReranker
from app.services.gateway.retries import RetryBudget
from app.services.gateway.routes import Router, Target
from app.services.gateway.scripted import ScriptedProvider
from app.services.gateway.semantic import SemanticAnswers
from app.services.gateway.server import ModelServer
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.tools.builtins import builtin_faults
from app.settings import Settings
from graphs.errors import Invalid
from graphs.types import ModelInfo, Task

DEFAULT_ROUTE: Final = "default"
# A model on this machine's own cores may take a minute before it speaks.
PLAIN: Final = RouteConfig(candidates=("x",), timeout_s=600, between_tokens_timeout_s=60)


def read_config(settings: Settings) -> Config:
    """The configuration file's content; an empty one where there is no file. Raises ConfigInvalid."""
    if settings.config is not None:
        return load(settings.config, checks=(builtin_faults,))
    path = settings.default_config
    return load(path, checks=(builtin_faults,)) if path.is_file() else Config()


async def open_gateway(
    settings: Settings,
    config: Config,
    embedder: MiniLmEmbedder,
    desk: Desk,
    *,
    providers: Mapping[str, Provider] | None = None,
    quality: Callable[[str, Task], float | None] = lambda _model, _task: None,
    redis: Redis | None = None,
) -> ModelGateway:
    """`providers`, in tests and drills, stand in place of the models of environment and package, by name. Routes
    that keep answers keep them in `redis` where there is one, else in this process; those found by their meaning lie
    beside the index.

    Raises ConfigInvalid for a model without a price, Invalid for one that cannot be opened.
    """
    prices = {name: price_of(config, name, model) for name, model in config.models.items()}
    own = dict(providers) if providers is not None else await _own(settings, embedder)
    targets = {
        name: _target(config, name, provider, _own_price(settings, provider), provider.info.provider)
        for name, provider in own.items()
    }
    for name, model in config.models.items():
        provider = await _provider(config.providers[model.provider], name, model, embedder)
        targets[name] = _target(config, name, provider, prices[name], model.provider)
    if MINILM_NAME not in targets:
        targets[MINILM_NAME] = _target(config, MINILM_NAME, MiniLmEmbeddings(embedder), FREE, "minilm")
    default, by_task = _defaults(settings, config, own)
    limits = config.limits
    router = Router(
        targets,
        config.routes,
        members=config.model_names,
        by_task=by_task,
        default=default,
        plain=PLAIN,
        quality=quality,
    )
    recovery = Recovery(desk, retries=RetryBudget(limits.retry_share, limits.retry_floor))
    return ModelGateway(router, recovery, await _cache(settings, config, router, embedder, redis))


async def _cache(
    settings: Settings, config: Config, router: Router, embedder: MiniLmEmbedder, redis: Redis | None
) -> Cache | None:
    """The caches of the routes that name one; None where none does."""
    kept = {name: route.cache for name, route in config.routes.items() if route.cache.keeps}
    if not kept:
        return None
    semantic, keeping = None, Keeping(open_vault(settings))
    if any(cache.semantic_ttl_s is not None for cache in kept.values()):
        semantic = await SemanticAnswers.open(_answers(settings), embedder, keeping=keeping)
    return Cache(
        MemoryAnswers() if redis is None else RedisAnswers(redis, keeping=keeping),
        semantic,
        {name: _what_answers(settings, config, router.models_of(name)) for name in kept},
        aged=any(step.cached for allowance in config.allowances() for step in allowance.degrade),
    )


def _answers(settings: Settings) -> Path | Bucket:
    """Beside the index: who forgets a tenant's answers has to reach those that other processes keep."""
    if settings.storage_url is None:
        return settings.home.resolve() / "answers"
    return Bucket.at(f"{settings.storage_url.rstrip('/')}/answers", settings.storage_endpoint_url)


def _what_answers(settings: Settings, config: Config, targets: Sequence[Target]) -> str:
    """A digest of what a route's models are, wherever they stand in it and whatever they cost."""
    found: list[tuple[object, ...]] = []
    for target in targets:
        if (model := config.models.get(target.name)) is not None:
            place = config.providers[model.provider]
            served = (place.kind, place.base_url, place.path, place.chat_model, sorted(place.arguments.items()))
            found.append((target.name, model.model, *served))
        else:
            info, own = target.info, (settings.openai_base_url, settings.gguf_path)
            found.append((target.name, info.version, info.provider, *own))
    return hashlib.sha256(json.dumps(sorted(found, key=str), default=str).encode()).hexdigest()


def _defaults(settings: Settings, config: Config, own: Mapping[str, Provider]) -> tuple[str, dict[Task, str]]:
    """What serves calls that name no model. A model of the user's own serves everything; the embedded default answers
    RAG with the extractive model, which scores better there (evals/LOG.md)."""
    if DEFAULT_ROUTE in config.routes:
        return DEFAULT_ROUTE, {}
    chat = [name for name, model in config.models.items() if model.kind == "chat"]
    if chat:
        return chat[0], {}
    default = next(iter(own))
    theirs = settings.openai_model is not None or settings.gguf_path is not None
    extractive = next((name for name, provider in own.items() if provider.info.extractive), None)
    return default, {} if theirs or extractive is None else {"rag": extractive}


def _target(config: Config, name: str, provider: Provider, price: Price, provider_name: str) -> Target:
    breaker = config.breaker
    policy = BreakerPolicy(
        window_s=breaker.window_s,
        min_calls=breaker.min_calls,
        failure_rate=breaker.failure_rate,
        slow_call_s=breaker.slow_call_s,
        slow_rate=breaker.slow_rate,
        open_s=breaker.open_s,
        max_open_s=breaker.max_open_s,
        probes=breaker.probes,
    )
    return Target(name, provider, price, Breaker(policy), provider_name=provider_name)


async def _own(settings: Settings, embedder: MiniLmEmbedder) -> dict[str, Provider]:
    """The models of environment and package by name, the default of everything but RAG first."""
    found: list[Provider] = []
    if settings.openai_model and settings.openai_base_url:
        key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else ""
        info = ModelInfo(
            name=settings.openai_model,
            version="",
            provider="openai",
            context_tokens=settings.openai_context_tokens,
            max_output_tokens=settings.openai_context_tokens // 4,
            native_tools=settings.openai_native_tools,
        )
        server = ModelServer(settings.openai_base_url, key, named="openai_base_url")
        found.append(OpenAiProvider(info, server))
    found.append(
        await LlamaCppProvider.open(
            gguf=settings.gguf_path, context_tokens=settings.gguf_context_tokens, threads=settings.model_threads
        )
    )
    found.append(ExtractiveAnswerer(embedder))
    return {provider.info.name: provider for provider in found}


async def _provider(place: ProviderConfig, name: str, model: ModelConfig, embedder: MiniLmEmbedder) -> Provider:
    """Raises Invalid, Missing where it cannot be opened."""
    key = os.environ.get(place.api_key_env, "") if place.api_key_env is not None else ""
    info = _info(name, model)
    gguf = None if place.path is None else Path(place.path)
    dimensions, window = model.dimensions, model.context_tokens
    match model.kind, place.kind:
        case "chat", "openai":
            return OpenAiProvider(info, ModelServer.configured(place, key), served_name=model.model)
        case "chat", "llamacpp":
            return await LlamaCppProvider.open(gguf=gguf, name=name, context_tokens=window)
        case "chat", "extractive":
            return ExtractiveAnswerer(embedder)
        case "chat", "scripted":
            return ScriptedProvider(lambda _: str(place.arguments.get("answer", "This is scripted.")), info)
        case "chat", "anthropic":
            return _vendor("anthropic", "AnthropicProvider", place, info, model, key)
        case "chat", "langchain":
            return _vendor("langchain", "LangChainProvider", place, info, model, key)
        case "embedding", "openai":
            server = ModelServer.configured(place, key)
            return OpenAiEmbeddings(info, server, served_name=model.model, dimensions=dimensions)
        case "embedding", "llamacpp":
            return await LlamaCppEmbeddings.open(gguf=gguf, name=name, context_tokens=window, dimensions=dimensions)
        case "embedding", "onnx":
            return await OnnxEmbeddings.open(info, Path(place.path or ""), dimensions=dimensions)
        case "embedding", "langchain":
            return _vendor("embedding_langchain", "LangChainEmbeddings", place, info, model, key)
        case "rerank", "openai" | "rerank":
            tei = place.arguments.get("dialect") == "tei"
            return HttpReranker(info, ModelServer.configured(place, key), served_name=model.model, tei=tei)
        case "rerank", "onnx":
            return await OnnxReranker.open(info, Path(place.path or ""))
        case _:
            raise Invalid(f"a provider of kind {place.kind} {CANNOT[model.kind]}", field=f"models.{name}.kind")


def _info(name: str, model: ModelConfig) -> ModelInfo:
    if model.kind != "chat":
        return embedding_info(name, model.provider, model.context_tokens)
    return ModelInfo(
        name=name,
        version="",
        provider=model.provider,
        context_tokens=model.context_tokens,
        max_output_tokens=model.max_output_tokens or model.context_tokens // 4,
        native_tools=model.native_tools,
    )


def _vendor(module: str, maker: str, place: ProviderConfig, info: ModelInfo, model: ModelConfig, key: str) -> Provider:
    """Adapters whose libraries are imported only where a configuration asks for them."""
    made: Any = getattr(import_module(f"app.services.gateway.{module}"), maker)
    provider: Provider = made.configured(info, place, model, key)
    return provider


def price_of(config: Config, name: str, model: ModelConfig) -> Price:
    """Raises ConfigInvalid, which a file that was read does not come to."""
    price = known(model, config.providers[model.provider])
    if price is None:
        raise ConfigInvalid("the configuration", [Fault(f"models.{name}", 0, UNPRICED)])
    return price


def _own_price(settings: Settings, provider: Provider) -> Price:
    """Embedded models are free, and so is a server of one's own; a vendor's price must be known."""
    if provider.info.provider != "openai" or settings.openai_base_url is None:
        return FREE
    place = ProviderConfig(kind="openai", base_url=settings.openai_base_url)
    given = ModelConfig(
        provider="openai",
        model=provider.info.name,
        input_usd_per_mtok=settings.openai_input_usd_per_mtok,
        output_usd_per_mtok=settings.openai_output_usd_per_mtok,
    )
    price = configured(given) or listed(provider.info.name, place)
    if price is not None:
        return price
    if _is_own_server(settings.openai_base_url):
        return FREE
    raise Invalid(
        f"nobody knows what {provider.info.name} costs there: set PILOTHOUSE_OPENAI_INPUT_USD_PER_MTOK and "
        "PILOTHOUSE_OPENAI_OUTPUT_USD_PER_MTOK (0 where it is free)",
        field="openai_model",
    )


def _is_own_server(base_url: str) -> bool:
    """Whether the server is on this machine or in a private network."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".local", ".internal")) or "." not in host
