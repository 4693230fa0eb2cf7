"""Opens everything a run needs and closes it again: the only place where services are made and graphs compiled.

`open_workbench(settings)` gives the bench once the models have loaded; the handbook is ingested behind it, and
`bench.ready` is set when a question about it can be answered.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.answers import Answers
from app.at_work import at_work
from app.buckets import Bucket
from app.builds import Builds
from app.checkpoints import checkpointer, sweep
from app.config.price import usd_to_micros
from app.config.schema import Config, ReachConfig
from app.decisions import Decisions
from app.embedders import FileEmbedders
from app.erasure import Erasure
from app.fleet import HEED_S, TAKE_OVER_S, Fleet
from app.jobs.collections import OptimizeJob, RebuildJob
from app.jobs.ingest import IngestJob
from app.jobs.notices import PASS_S, Courier
from app.jobs.objects import Objects
from app.jobs.open import Bounds, open_jobs
from app.jobs.reseal import RESEAL, ResealJob
from app.jobs.retention import RetentionJob
from app.jobs.runs import RunsJob
from app.jobs.urls import Fetcher
from app.jobs.webhook import WebhookJob
from app.models import open_gateway, read_config
from app.names import HANDBOOK, SHARED_TENANT
from app.optional_tools import OptionalTools
from app.originals import with_originals
from app.outbound.policy import Reach
from app.owner import admit_owner
from app.policy import policy_of, rerankers
from app.records import CardUsage, Payer, Principal
from app.resealing import Resealing
from app.retention import Retention
from app.runner import Job, MakeContext, Runner
from app.sealing import open_vault, vault_orders
from app.services.access.access import Access
from app.services.access.issuer import Issuer
from app.services.access.login import OidcLogin
from app.services.access.oidc import OidcVerifier
from app.services.access.sessions import LoginTokens, Sessions
from app.services.escalation.store import StoreEscalation
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.meter import Caps, MeteredGateway
from app.services.gateway.provider import Provider
from app.services.gateway.scorecard import Scorecard
from app.services.gateway.shared_health import SharedHealth
from app.services.guardrails.guard import PatternGuard
from app.services.guardrails.instructions import mark_of
from app.services.guardrails.shape import JsonShape
from app.services.ingest.ingest import Ingest, Source
from app.services.jobs.desk import JobDesk
from app.services.jobs.ports import JobRequest
from app.services.jobs.schedule import SYSTEM
from app.services.jobs.worker import Check
from app.services.quota.allowances import Allowances
from app.services.quota.committer import Committer
from app.services.quota.desk import QuotaDesk
from app.services.quota.leases import Leases
from app.services.quota.ledger import Ledger
from app.services.quota.places import Places
from app.services.quota.shared_window import SharedWindows
from app.services.quota.window import LocalWindows
from app.services.relay.relay import EventRelay
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.golden import GoldenQuestions
from app.services.retrieval.library import Library
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.rebuild import Rebuild
from app.services.retrieval.retriever import TenantRetriever
from app.services.store.migrate import ALL_SEALED_SINCE
from app.services.store.store import Store
from app.services.tables.shelf import TableShelf
from app.services.tools.calculator import Calculator
from app.services.tools.create_ticket import CreateTicket
from app.services.tools.current_time import CurrentTime
from app.services.tools.pick import ToolPicker
from app.services.tools.registry import Registry, open_registry
from app.services.tools.search_documents import SearchDocuments
from app.services.tools.tool import Tool
from app.services.tools.toolbox import ScopedToolbox
from app.settings import Settings, quiet_libraries
from app.sight import OPEN, Sight
from app.telemetry.exporter_process import exporter_process
from app.telemetry.spans import RunTrace
from app.traces import Traces
from app.watch import Watch, open_watch
from app.withdrawal import Withdrawal
from graphs import catalog
from graphs.context import Limits, RunContext
from graphs.errors import Forbidden
from graphs.prompts import PromptBook

log = logging.getLogger("pilothouse.workbench")

PAGES: Final = Path(__file__).with_name("handbook")
GO_ON_S: Final = 5.0  # how often runs are looked for whose call was decided elsewhere, or whose time is over
SWEEP_S: Final = 60.0  # how often checkpoints are looked for that no run needs
INHERITED_S: Final = 60.0  # how long after its process's death a run is written down at the latest
DAY_S: Final = 24 * 3600.0
ENOUGH_DISK_BYTES: Final = 1 << 30
REDIS_TIMEOUT_S: Final = 0.25  # a call waits no longer for what Redis shares; each use has a way to do without


@dataclass(slots=True)
class Workbench:
    """Everything open. `ready` is set when the handbook is searchable; `failed` holds why it cannot be."""

    settings: Settings
    owner: Principal
    store: Store
    access: Access
    sessions: Sessions
    login_tokens: LoginTokens
    oidc_login: OidcLogin | None
    embedder: MiniLmEmbedder
    library: Library
    rebuild: Rebuild
    builds: Builds
    golden: GoldenQuestions
    maintenance: Maintenance
    ingest: Ingest
    tables: TableShelf
    objects: Objects
    config: Config
    desk: QuotaDesk
    watch: Watch
    gateway: ModelGateway
    guard: PatternGuard
    answers: Answers
    prompts: PromptBook
    tools: Registry
    runner: Runner
    jobs: JobDesk
    erasure: Erasure
    clock: Callable[[], datetime]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    preparing: asyncio.Task[None] | None = None

    def login_link(self) -> str:
        """A console link that logs the owner in once, as Jupyter prints it."""
        token = self.login_tokens.issue(self.owner)
        everywhere = self.settings.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if everywhere else self.settings.host
        return f"http://{host}:{self.settings.port}/login?token={token}"

    def retriever(self, tenant_id: str, trace: RunTrace, sight: Sight = OPEN) -> TenantRetriever:
        """Search as a run of somebody of that tenant would."""
        return TenantRetriever(self.library, tenant_id, trace, sight)

    async def until_ready(self) -> None:
        """Wait for the handbook; raises what made its ingest fail."""
        if self.preparing is not None:
            await asyncio.shield(self.preparing)

    async def examine(self) -> list[tuple[str, bool, str]]:
        """What `pilothouse doctor` prints: name, whether it is well, and what was found."""
        home = self.settings.home.resolve()
        free = shutil.disk_usage(home).free
        await self.store.ping()
        vectors = await self.embedder.embed(["probe"])
        models = ", ".join(f"{info.name} ({info.provider})" for info in self.gateway.models)
        handbook = await self.library.version(SHARED_TENANT, HANDBOOK)
        backlog = await self.store.runs.backlog()
        return [
            ("state", True, str(home)),
            ("disk", free >= ENOUGH_DISK_BYTES, f"{free / 2**30:.1f} GiB free"),
            ("store", True, self.settings.store_url.split("://", 1)[0]),
            ("embedder", vectors.shape == (1, self.embedder.dimensions), self.embedder.id),
            ("models", bool(models), models),
            ("handbook", self.ready.is_set(), handbook),
            ("trace backlog", True, f"{backlog} runs"),
            *_tools_found(self.tools),
        ]


@asynccontextmanager
async def open_workbench(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    providers: Mapping[str, Provider] | None = None,
    serving: bool = False,
) -> AsyncIterator[Workbench]:
    """Open the bench for those settings. `providers`, in tests and drills, replaces the models by name.

    Only the process that is `serving` may take over what a dead one left; a command or notebook beside it must not.
    """
    quiet_libraries()
    home = settings.home.resolve()
    config = read_config(settings)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        stack.enter_context(at_work(home))
        redis = await stack.enter_async_context(_open_redis(settings))
        vault = open_vault(settings)
        store = await Store.open(settings.store_url, clock, vault)
        stack.push_async_callback(store.close)
        watch = await stack.enter_async_context(open_watch(store.database, config.alerts))
        configured = settings.owner_key.get_secret_value() if settings.owner_key else None
        owner, secret = await admit_owner(store.keys, home, configured, shared=settings.store_is_shared)
        verifier, oidc_login = _oidc(settings, config.outbound.oidc, secret)
        embedder = await MiniLmEmbedder.open(threads=settings.model_threads)
        stack.callback(embedder.close)
        desk, ledger = await stack.enter_async_context(_open_desk(settings, config, redis, clock, watch))
        gateway = await open_gateway(
            settings,
            config,
            embedder,
            desk,
            providers=providers,
            quality=Scorecard(settings.scorecard or home / "scorecard.json"),
            redis=redis,
        )
        if redis is not None:
            breakers = {name: target.breaker for name, target in gateway.router.targets.items()}
            await stack.enter_async_context(SharedHealth(redis, breakers))
        desk.all_models = frozenset(gateway.router.targets)
        watch.follow(gateway)
        stack.push_async_callback(gateway.close)
        library = await Library.open(_index(settings), embedder, FileEmbedders(config, gateway))
        stack.push_async_callback(library.close)
        ingest = Ingest(library, store.documents)
        tables = TableShelf(home / "tables")
        optional = OptionalTools(config.tools, store.database, tables)
        objects = Objects(
            lambda tenant_id: config.tenant(tenant_id).sources, settings.storage_endpoint_url, settings.max_upload_bytes
        )
        packaged, mark = PromptBook.packaged(), mark_of(secret)
        prompts = packaged.marked(mark)
        tools = await stack.enter_async_context(
            open_registry(
                config,
                store.database,
                observe=watch.metrics.tool_called,
                turned_away=watch.metrics.tool_turned_away,
            )
        )
        watch.metrics.know_tools(tools.names)
        picker = ToolPicker(embedder, fallback=SearchDocuments.spec.name)
        guard = PatternGuard(embedder)
        answers = Answers(config.answers, settings.image_hosts, prompts=packaged, mark=mark)
        for rules in (config.guards, *map(config.guards.of, config.guards.tenants)):
            await guard.ready(rules)
        saver = await stack.enter_async_context(checkpointer(settings.store_url, home / "checkpoints.db", vault))
        relay = None if redis is None else EventRelay(redis)
        if relay is not None:
            stack.push_async_callback(relay.close)
        runner = Runner(
            store=store,
            graphs={
                name: catalog.build(name).compile(checkpointer=saver if name == "agent" else None, name=name)
                for name in catalog.CATALOG
            },
            make_context=_context_maker(
                store, library, gateway, guard, answers, prompts, tools, optional, picker, clock, config
            ),
            clock=clock,
            run_timeout_s=settings.run_timeout_s,
            reattach_grace_s=settings.reattach_grace_s,
            decisions=Decisions(store, clock, config.approvals, ttl_s=settings.approval_ttl_s),
            safe_answer=lambda tenant_id: config.answers.of(tenant_id).safe or config.safe_answer,
            max_message_chars=settings.max_message_chars,
            admit=desk.admit,
            barred=watch.barred,
            ended=watch.metrics.run,
            fleet=Fleet(
                store,
                ledger,
                relay,
                bound_s=settings.run_timeout_s + INHERITED_S,
                grace_s=settings.reattach_grace_s,
            ),
        )
        watch.stops(runner.stop)
        stack.push_async_callback(runner.close)
        traces = Traces(settings.tracking_uri)
        golden, check = GoldenQuestions(store.database), _check_owner(store, watch)
        builds = Builds(library, store.documents, golden, gateway.forget)
        maintenance = Maintenance(library, home / "lance" if settings.storage_url is None else None)
        withdrawal = Withdrawal(store, ingest, golden, maintenance, tables, gateway.forget)
        jobs = await stack.enter_async_context(
            open_jobs(
                store.database,
                (
                    IngestJob(ingest, Fetcher.of(config.outbound.documents, settings.max_upload_bytes), objects),
                    RunsJob(runner, check),
                    RebuildJob(builds),
                    OptimizeJob(maintenance, library),
                    ResealJob(Resealing(store.database, saver, vault)),
                ),
                WebhookJob.of(config.outbound),
                RetentionJob(Retention(store, saver, traces, withdrawal, config.retention)),
                check,
                Bounds(
                    settings.jobs_at_once,
                    settings.jobs_at_once_per_tenant,
                    settings.job_poll_s,
                    (config.retention.jobs_days or settings.job_retention_days) * DAY_S,
                    {name: days * DAY_S for name, days in config.retention.jobs_of_tenants.items()},
                ),
                settings.job_engine_url if serving and settings.jobs_in_process else None,
            )
        )
        bench = Workbench(
            settings=settings,
            owner=Principal(owner.tenant_id, owner.user_id, frozenset(owner.scopes), owner.key_id),
            store=store,
            access=Access(store.keys, verifier),
            sessions=Sessions(secret, store.keys),
            login_tokens=LoginTokens(),
            oidc_login=oidc_login,
            embedder=embedder,
            library=library,
            rebuild=Rebuild(library),
            builds=builds,
            golden=golden,
            maintenance=maintenance,
            ingest=ingest,
            tables=tables,
            objects=objects,
            config=config,
            desk=desk,
            watch=watch,
            gateway=gateway,
            guard=guard,
            answers=answers,
            prompts=prompts,
            tools=tools,
            runner=runner,
            jobs=jobs,
            erasure=Erasure(store, saver, gateway.forget, traces, withdrawal),
            clock=clock,
        )
        if settings.export_traces:
            settings.mlruns.mkdir(parents=True, exist_ok=True)
            await stack.enter_async_context(
                exporter_process(
                    settings.store_url,
                    settings.tracking_uri,
                    settings.mlruns.resolve() / "artifacts",
                    vault=vault_orders(settings),
                )
            )
        if serving:
            await runner.recover()
        if serving and vault.accepts_plain:
            once = f"what lay in the clear before {ALL_SEALED_SINCE}"
            await jobs.submit(JobRequest(SYSTEM, RESEAL, idempotency_key=once))
        bench.preparing = asyncio.create_task(_prepare(bench), name="ingest handbook")
        behind = {bench.preparing, asyncio.create_task(_every(HEED_S, runner.heed), name="heed cancels")}
        if serving:
            courier = Courier(store, config.approvals, jobs)
            behind.add(asyncio.create_task(bench.maintenance.keep(), name="keep the index"))
            behind |= {
                asyncio.create_task(_every(GO_ON_S, runner.go_on), name="sweep approvals"),
                asyncio.create_task(_every(PASS_S, courier.pass_on), name="pass notices on"),
                asyncio.create_task(_every(SWEEP_S, partial(sweep, saver, store)), name="sweep checkpoints"),
                asyncio.create_task(_every(TAKE_OVER_S, runner.take_over), name="take over runs"),
            }
        try:
            yield bench
        finally:
            for task in behind:
                task.cancel()
            await asyncio.wait(behind)


def _tools_found(tools: Registry) -> list[tuple[str, bool, str]]:
    """What the file names and no run is offered, and why."""
    waiting = {"new": "waits to be accepted", "changed": "has changed and waits to be accepted"}
    return [
        (f"tool {entry.name}", False, waiting.get(entry.state) or entry.why)
        for entry in tools.entries()
        if entry.state not in {"on", "off"}
    ]


def _index(settings: Settings) -> Path | Bucket:
    if settings.storage_url is None:
        return settings.home.resolve() / "lance"
    return Bucket.at(settings.storage_url, settings.storage_endpoint_url)


@asynccontextmanager
async def _open_redis(settings: Settings) -> AsyncIterator[Redis | None]:
    """The client of the Redis that the settings name. It connects at its first use: one that is away stops no start."""
    if settings.redis_url is None:
        yield None
        return
    client: Redis = Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),  # the client's own three tries with pauses made 3 s of it
    )
    async with client:
        yield client


@asynccontextmanager
async def _open_desk(
    settings: Settings, config: Config, redis: Redis | None, clock: Callable[[], datetime], watch: Watch
) -> AsyncIterator[tuple[QuotaDesk, Ledger]]:
    """Limits, places and books, and what keeps them behind the calls."""
    limits = config.limits
    leases = None if redis is None else Leases(redis)
    committer = Committer(settings.store_url, durable=settings.ledger_durable)
    ledger = Ledger(committer, now=clock, on_spent=watch.alerts.note_spent)
    desk = QuotaDesk(
        Allowances(config, config.model_names),
        ledger,
        LocalWindows() if redis is None else SharedWindows(redis),
        Places(
            at_once=limits.concurrent_runs,
            queue_length=limits.queue_length,
            queue_wait_s=limits.queue_wait_s,
            leases=leases,
        ),
        switches=watch.switches,
    )
    await ledger.keep_once()
    keeping = {asyncio.create_task(ledger.keep(), name="keep the ledger")}
    if leases is not None:
        keeping.add(asyncio.create_task(leases.keep(), name="renew leases"))
    try:
        yield desk, ledger
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
        if leases is not None:
            await leases.close()
        await ledger.close()


async def _prepare(bench: Workbench) -> None:
    """Bring the handbook's collection in step with the packaged pages, then say ready."""
    pages = {path.stem: path for path in sorted(PAGES.glob("*.md"))}
    held = await bench.store.documents.list(SHARED_TENANT, HANDBOOK, limit=200)
    for gone in {record.document_id for record in held.items} - pages.keys():
        await bench.ingest.remove(SHARED_TENANT, HANDBOOK, gone)
    # Pages whose hash is unchanged are skipped, so that only the first start pays for embedding.
    sources = [Source(name, path.read_bytes(), path.name, trust="operator") for name, path in pages.items()]
    for outcome in await bench.ingest.add_batch(SHARED_TENANT, HANDBOOK, sources):
        if outcome.error is not None:
            raise outcome.error
    await bench.tools.looked()
    bench.ready.set()
    log.info("ready", extra={"handbook_pages": len(pages)})


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again; one failing round is logged and the next one tries again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            # The loop of a worker: a store that is away for a minute must not end it.
            log.exception("sweeping runs failed", extra={"work": getattr(work, "__name__", "")})


def _check_owner(store: Store, watch: Watch) -> Check:
    """Whether who asked for a job may still have it done. A key may open no more, or be in other groups by now; who
    came with a token stays in those of the token."""

    async def check(principal: Principal) -> Principal:
        if principal.key_id:
            if (key := await store.keys.find(principal.key_id)) is None:
                raise Forbidden("the key that asked for this job is revoked or has expired")
            principal = replace(principal, groups=frozenset(key.groups))
        if (error := watch.barred(Payer(principal.tenant_id, principal.user_id, principal.key_id))) is not None:
            raise error
        return principal

    return check


def _context_maker(
    store: Store,
    library: Library,
    gateway: ModelGateway,
    guard: PatternGuard,
    answers: Answers,
    prompts: PromptBook,
    tools: Registry,
    optional: OptionalTools,
    picker: ToolPicker,
    clock: Callable[[], datetime],
    config: Config,
) -> MakeContext:
    limits = Limits()
    cost_usd = config.limits.run_cost_usd
    caps = Caps(config.limits.run_tokens or None, None if cost_usd is None else usd_to_micros(cost_usd))
    guarded = {name: config.guards.of(name) for name in config.guards.tenants}

    def make(job: Job, trace: RunTrace) -> tuple[RunContext, MeteredGateway]:
        tenant, user = job.principal.tenant_id, job.principal.user_id
        request = job.request
        payer = Payer(tenant, user, job.principal.key_id, request.feature, job.run_id, job.run_id)
        used = CardUsage() if job.earlier is None else job.earlier.usage
        left = caps.left(used.input_tokens + used.output_tokens, used.cost_usd_micros)
        metered = MeteredGateway(gateway, trace, request.model, payer=payer, safe_answer=config.safe_answer, caps=left)
        metered.describe()  # an unknown model is refused before there is a run
        policy = policy_of(config.retrieval, request.collection, metered, request.retrieval)
        retriever = TenantRetriever(library, tenant, trace, job.principal.sight, rerankers(metered))
        own: tuple[Tool, ...] = (
            SearchDocuments(
                retriever,
                collection=request.collection,
                where=request.where,
                limit=limits.passages,
                rerank=policy.rerank,
            ),
            Calculator(),
            CurrentTime(clock),
            CreateTicket(store.tickets),
            *optional.of(job.principal),
        )
        rules = guarded.get(tenant, config.guards)
        context = RunContext(
            run_id=job.run_id,
            tenant_id=tenant,
            user_id=user,
            gateway=metered,
            retriever=retriever,
            toolbox=ScopedToolbox(
                tools.offered(job.principal, own),
                tenant_id=tenant,
                user_id=user,
                run_id=job.run_id,
                trace=trace,
                picker=picker,
                policy=partial(config.tool_policy.ruled, tenant),
                turned_away=tools.turned_away,
            ),
            guard=guard.answering(answers.guard(tenant)).taking_in(rules, job.run_id, embeds=request.mode != "chat"),
            prompts=prompts,
            trace=trace,
            escalation=StoreEscalation(store.escalations, run_id=job.run_id, tenant_id=tenant),
            clock=clock,
            limits=limits,
            model=request.model,
            collection=request.collection,
            where=request.where,
            policy=policy,
            answers=answers.policy(tenant),
            shape=None if request.response_schema is None else JsonShape(request.response_schema),
        )
        return with_originals(context, rules), metered

    return make


def _oidc(settings: Settings, reach: ReachConfig, secret: str) -> tuple[OidcVerifier | None, OidcLogin | None]:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None, None
    issuer = Issuer(settings.oidc_issuer, reach=Reach.of(reach))
    verifier = OidcVerifier(
        issuer,
        settings.oidc_audience,
        tenant_claim=settings.oidc_tenant_claim,
        groups_claim=settings.oidc_groups_claim,
        default_scopes=settings.oidc_default_scopes,
    )
    if settings.oidc_client_id is None:
        return verifier, None
    client_secret = settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else None
    return verifier, OidcLogin(issuer, verifier, settings.oidc_client_id, client_secret, secret)
