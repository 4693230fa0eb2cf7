"""The gateway's configuration as values: providers, models, routes, tenants. Frozen; nothing here reads or opens.

Money is written in US dollars and tokens a month or minute, as people think of them; `Price` turns it into integers.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, IPvAnyNetwork, model_validator

from app.config.answers import AnswersConfig
from app.config.approvals import ApprovalConfig
from app.config.guards import GuardsConfig
from app.config.part import Count, Environment, Host, Name, Part, Prefix, Seconds, Share, Usd, laid_over
from app.config.policy import ToolPolicy
from app.config.retention import RetentionConfig
from app.config.tools import McpServerConfig, ServerName, ToolConfig, ToolName
from graphs.policy import LIMIT_VARIANTS, Fusion
from graphs.types import Task

ProviderKind = Literal["openai", "anthropic", "llamacpp", "extractive", "langchain", "scripted", "rerank", "onnx"]
Policy = Literal["order", "cost", "latency", "quality"]
BrokenStream = Literal["fail", "continue"]

EVERYONE = "*"
"""The name under which a tenant, user, feature or key that is not listed finds its allowance."""


class ProviderConfig(Part):
    """A place that serves models. Secrets are named by their environment variable, never written here."""

    kind: ProviderKind
    base_url: str | None = None
    api_key_env: Environment | None = None
    path: str | None = Field(default=None, description="GGUF file of a llamacpp provider, folder of an onnx one.")
    chat_model: str | None = Field(default=None, description="Import path of a langchain chat model, package:Class.")
    arguments: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict, description="Keyword arguments of that class."
    )
    max_connections: int = Field(default=256, ge=1, le=10_000)
    connect_timeout_s: Seconds = 5.0

    @model_validator(mode="after")
    def _belongs(self) -> "ProviderConfig":
        needs = {
            "openai": ("base_url",),
            "langchain": ("chat_model",),
            "rerank": ("base_url",),
            "onnx": ("path",),
        }.get(self.kind, ())
        for field in needs:
            if getattr(self, field) is None:
                raise ValueError(f"a provider of kind {self.kind} needs {field}")
        if self.base_url is not None:
            place = urlsplit(self.base_url)  # half an address, or a port that is no number, is a ValueError too
            if place.scheme not in {"http", "https"} or not place.hostname or place.port == 0:
                raise ValueError("base_url must be http:// or https:// and name a host")
        return self


class ModelConfig(Part):
    """A model as routes and callers name it. Prices that are absent come from the public price list."""

    provider: Name
    model: str = Field(min_length=1, max_length=256)
    input_usd_per_mtok: Usd | None = None
    output_usd_per_mtok: Usd | None = None
    cached_input_usd_per_mtok: Usd | None = None
    cache_write_usd_per_mtok: Usd | None = None
    context_tokens: int = Field(default=16_384, ge=256, le=100_000_000)
    max_output_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    native_tools: bool = True
    kind: Literal["chat", "embedding", "rerank"] = "chat"
    dimensions: int | None = Field(default=None, ge=1, le=100_000, description="Of an embedding model.")
    query_prefix: str = Field(default="", max_length=2_000, description="What an embedding model wants before a query.")
    passage_prefix: str = Field(default="", max_length=2_000, description="The same before a passage.")

    @model_validator(mode="after")
    def _priced_whole(self) -> "ModelConfig":
        if (self.input_usd_per_mtok is None) != (self.output_usd_per_mtok is None) and self.kind == "chat":
            raise ValueError("input_usd_per_mtok and output_usd_per_mtok are given together or not at all")
        return self


class CacheConfig(Part):
    """Caches of a route; both are off unless they are named."""

    exact_ttl_s: Seconds | None = None
    semantic_ttl_s: Seconds | None = None
    # Keeps nine tenths of the hits there are; false hits 0 of 1,655, at most 0.2 % (benchmarks/semantic_cache.py).
    semantic_threshold: Share = 0.96

    @property
    def keeps(self) -> bool:
        return self.exact_ttl_s is not None or self.semantic_ttl_s is not None


class RouteConfig(Part):
    """How a call finds its model. A candidate is a model or another route, whose candidates stand in its place."""

    candidates: tuple[Name, ...] = Field(min_length=1, max_length=32)
    policy: Policy = "order"
    min_quality: Share | None = None
    timeout_s: Seconds = 60.0
    first_token_timeout_s: Seconds | None = None
    between_tokens_timeout_s: Seconds = 30.0
    retries: int = Field(default=2, ge=0, le=10)
    hedge_after_s: Seconds | None = None
    on_broken_stream: BrokenStream = "fail"
    cache: CacheConfig = CacheConfig()


class Degrade(Part):
    """What becomes of calls from a share of the budget on: one step of the ladder."""

    at: float = Field(ge=0, le=1, allow_inf_nan=False)
    route: Name | None = None
    context_tokens: int | None = Field(default=None, ge=256, description="The prompt may have no more.")
    cached: bool = Field(default=False, description="A cached answer is given where there is one, whatever its age.")
    answer: Literal["extractive", "refuse"] | None = None

    @model_validator(mode="after")
    def _does_something(self) -> "Degrade":
        if self.route is None and self.context_tokens is None and not self.cached and self.answer is None:
            raise ValueError("a step needs one of route, context_tokens, cached, answer")
        return self


class Allowance(Part):
    """What one tenant, user, feature or key may use; None is without limit."""

    budget_usd_month: Usd | None = None
    requests_per_minute: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    tokens_per_minute: Count | None = None
    concurrent_runs: Annotated[int, Field(ge=0, le=100_000)] | None = None
    models: tuple[Name, ...] | None = None
    degrade: tuple[Degrade, ...] = ()

    @model_validator(mode="after")
    def _ladder_rises(self) -> "Allowance":
        shares = [step.at for step in self.degrade]
        if shares != sorted(shares):
            raise ValueError("the steps of degrade must rise")
        return self


class TenantConfig(Allowance):
    """A tenant's allowance, and those inside it; `"*"` stands for each one that is not listed."""

    sources: tuple[Prefix, ...] = Field(default=(), description="Of buckets, whose objects it may take in.")

    users: dict[str, Allowance] = Field(default_factory=dict)
    features: dict[str, Allowance] = Field(default_factory=dict)
    keys: dict[str, Allowance] = Field(default_factory=dict)


class BreakerConfig(Part):
    """When a model is left alone for a while. Rates are shares of the calls of the last `window_s`."""

    window_s: Seconds = 30.0
    min_calls: int = Field(default=10, ge=1)
    failure_rate: Share = 0.5
    slow_call_s: Seconds | None = None
    slow_rate: Share = 0.8
    open_s: Seconds = 5.0
    max_open_s: Seconds = 60.0
    probes: int = Field(default=1, ge=1, le=3)


class AlertConfig(Part):
    """Who is told of spent budgets and open breakers."""

    webhook_url_env: Environment | None = None
    webhook_secret_env: Environment | None = Field(
        default=None, description="Holds whsec_..., or a new and an old one with a space between; signs each alert."
    )
    budget_shares: tuple[Share, ...] = (0.5, 0.8, 1.0)


class ReachConfig(Part):
    """Where requests of one use may go beside the internet: hosts and networks of one's own."""

    hosts: tuple[Host, ...] = ()
    networks: tuple[IPvAnyNetwork, ...] = ()
    public: bool = Field(default=True, description="False leaves only what is listed.")


class OutboundConfig(Part):
    """Where requests may go whose URLs others than the operator name."""

    documents: ReachConfig = ReachConfig()
    webhooks: ReachConfig = ReachConfig()
    webhook_secret_env: Environment | None = Field(
        default=None, description="Holds whsec_..., or a new and an old one; without it jobs take no callbackUrl."
    )
    oidc: ReachConfig = ReachConfig()


class SearchConfig(Part):
    """How passages are looked for. `rerank` is none, maxsim, a re-rank model or a route of such."""

    rewrite: Literal["auto", "words", "off"] = Field(
        default="auto", description="Who makes a follow-up a question of its own; auto: the model where it can."
    )
    variants: int = Field(default=0, ge=0, le=LIMIT_VARIANTS, description="Other wordings that a model writes.")
    fusion: Fusion = "best"
    rerank: Name = "none"


class RetrievalConfig(SearchConfig):
    """For all collections, and what is different for those of a name, whoever's they are."""

    collections: dict[str, SearchConfig] = Field(default_factory=dict)

    def of(self, collection: str) -> SearchConfig:
        return laid_over(self, self.collections.get(collection))


class LimitsConfig(Part):
    """Bounds of the whole server."""

    concurrent_runs: int = Field(default=256, ge=1, le=100_000)
    queue_wait_s: Seconds = 10.0
    queue_length: int = Field(default=1_000, ge=0)
    max_n: int = Field(default=8, ge=1, le=128)
    max_output_tokens: int = Field(default=32_768, ge=1)
    run_tokens: Count = 1_000_000
    run_cost_usd: Usd | None = None
    retry_share: Share = 0.1
    retry_floor: int = Field(default=10, ge=0, description="Retries a minute that are allowed in any case.")


class Expectation(Part):
    """What an example of the file claims; what is not named is not checked."""

    allowed: bool | None = None
    model: Name | None = None
    candidates: tuple[Name, ...] | None = None
    degraded: str | None = None
    code: str | None = None


class Example(Part):
    """A claim about the file that `pilothouse config check` runs: this caller's call is routed like that."""

    tenant: str
    user: str = "someone"
    feature: str = ""
    key: str = ""
    model: Name = "default"
    task: Task = "chat"
    input_tokens: Count = 1_000
    spent_usd: Usd = Decimal(0)
    expect: Expectation


class Config(Part):
    """The whole file. Made by `app.config.load`, which also checks what one name says of another."""

    providers: dict[Name, ProviderConfig] = Field(default_factory=dict)
    models: dict[Name, ModelConfig] = Field(default_factory=dict)
    routes: dict[Name, RouteConfig] = Field(default_factory=dict)
    tenants: dict[str, TenantConfig] = Field(default_factory=dict)
    retrieval: RetrievalConfig = RetrievalConfig()
    limits: LimitsConfig = LimitsConfig()
    breaker: BreakerConfig = BreakerConfig()
    alerts: AlertConfig = AlertConfig()
    outbound: OutboundConfig = OutboundConfig()
    approvals: ApprovalConfig = ApprovalConfig()
    answers: AnswersConfig = AnswersConfig()
    guards: GuardsConfig = GuardsConfig()
    retention: RetentionConfig = RetentionConfig()
    tools: dict[ToolName, ToolConfig] = Field(default_factory=dict)
    mcp_servers: dict[ServerName, McpServerConfig] = Field(default_factory=dict)
    tool_policy: ToolPolicy = ToolPolicy()
    safe_answer: str = Field(
        default="I cannot answer just now. Please try again in a moment.", min_length=1, max_length=2_000
    )
    examples: tuple[Example, ...] = ()

    def tenant(self, tenant_id: str) -> TenantConfig:
        """The tenant's entry, else that of everyone, else one without limits."""
        return self.tenants.get(tenant_id) or self.tenants.get(EVERYONE) or TenantConfig()

    def allowances(self) -> Iterator[Allowance]:
        """Of all tenants, users, features and keys."""
        for tenant in self.tenants.values():
            yield from (tenant, *tenant.users.values(), *tenant.features.values(), *tenant.keys.values())

    def model_names(self, route: str) -> tuple[str, ...]:
        """The models of a route or model name in the order of its candidates, each once."""
        if route not in self.routes:  # a model of the file, or an embedded one
            return (route,)
        found: dict[str, None] = {}
        for candidate in self.routes[route].candidates:
            found.update(dict.fromkeys(self.model_names(candidate)))
        return tuple(found)
