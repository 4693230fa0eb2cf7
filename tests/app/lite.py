"""A runner over the real store, graphs, guard and tools, with a scripted model and passages in memory."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.answers import Answers
from app.checkpoints import PostgresCheckpoints, SqliteCheckpoints, checkpointer
from app.config.answers import AnswersConfig
from app.config.approvals import ApprovalConfig
from app.config.guards import GuardRules
from app.decisions import Decisions
from app.fleet import Fleet
from app.originals import with_originals
from app.records import Payer, Principal, RunEvent, RunRequest
from app.runner import Job, Runner
from app.services.escalation.store import StoreEscalation
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.meter import MeteredGateway
from app.services.gateway.scripted import Script, ScriptedGateway
from app.services.guardrails.guard import PatternGuard
from app.services.guardrails.shape import JsonShape
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.store.store import Store
from app.services.tools.calculator import Calculator
from app.services.tools.create_ticket import CreateTicket
from app.services.tools.search_documents import SearchDocuments
from app.services.tools.tool import Tool
from app.services.tools.toolbox import ScopedToolbox
from app.services.vault import Vault
from app.telemetry.spans import RunTrace
from graphs import catalog
from graphs.context import RunContext
from graphs.errors import PilothouseError
from graphs.prompts import PromptBook
from graphs.types import Passage, Retrieval

ANN = Principal("acme", "ann", frozenset({"chat", "approvals"}), "k1")
BOB = Principal("acme", "bob", frozenset({"chat"}), "k2")
SAFE = "That did not work. Somebody was told."
EVE = Principal("umbrella", "eve", frozenset({"chat", "approvals", "runs"}), "k3")


class FixedRetriever:
    """Gives the same passages to every query."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = tuple(passages)

    async def search(self, query: str, **_: object) -> Retrieval:
        return Retrieval(self._passages, "docs@7", "fixed")


@dataclass
class Lite:
    runner: Runner
    store: Store
    gateway: ScriptedGateway
    checkpoints: PostgresCheckpoints | SqliteCheckpoints

    async def ask(self, message: str, *, who: Principal = ANN, **options: object) -> "Answer":
        run_id = await self.runner.start(who, RunRequest(message, **options))  # type: ignore[arg-type]
        events = [event async for event in self.runner.events(who, run_id)]
        return Answer(run_id, events)


@dataclass
class Answer:
    run_id: str
    events: list[RunEvent]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def text(self) -> str:
        return "".join(event.data["text"] for event in self.events if event.type == "message.delta")


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def lite(
    home: Path,
    script: Script | ModelGateway,
    embedder: MiniLmEmbedder,
    *,
    safe_answer: str | None = None,
    passages: Sequence[Passage] = (),
    clock: Callable[[], datetime] = now,
    reattach_grace_s: float = 60,
    run_timeout_s: float = 60,
    native_tools: bool = True,
    barred: Callable[[Payer], PilothouseError | None] = lambda _: None,
    fleet: Callable[[Store], Fleet] | None = None,
    database_url: str | None = None,
    rules: ApprovalConfig = ApprovalConfig(),  # noqa: B008 - frozen
    guards: GuardRules = GuardRules(),  # noqa: B008 - frozen
    answers: AnswersConfig = AnswersConfig(),  # noqa: B008 - frozen
    more_tools: Sequence[Tool] = (),
    vault: Vault | None = None,
) -> AsyncIterator[Lite]:
    """Two at once on one `home` are two processes, each with a `fleet`."""
    url = database_url or f"sqlite+aiosqlite:///{home / 'lite.db'}"
    store = await Store.open(url, clock, vault)
    gateway = script if isinstance(script, ModelGateway) else ScriptedGateway(script)
    guard, prompts, checked = PatternGuard(embedder), PromptBook.packaged(), Answers(answers)

    def make_context(job: Job, trace: RunTrace) -> tuple[RunContext, MeteredGateway]:
        tenant, user = job.principal.tenant_id, job.principal.user_id
        payer = Payer(tenant, user, job.principal.key_id, job.request.feature, job.run_id, job.run_id)
        metered = MeteredGateway(gateway, trace, job.request.model, payer=payer, safe_answer=safe_answer)
        metered.describe()
        retriever = FixedRetriever(passages)
        tools = (*more_tools, SearchDocuments(retriever), Calculator(), CreateTicket(store.tickets))
        context = RunContext(
            run_id=job.run_id,
            tenant_id=tenant,
            user_id=user,
            gateway=metered,
            retriever=retriever,
            toolbox=ScopedToolbox(tools, tenant_id=tenant, user_id=user, run_id=job.run_id, trace=trace),
            guard=guard.answering(checked.guard(tenant)).taking_in(guards, job.run_id, embeds=False),
            prompts=prompts,
            trace=trace,
            escalation=StoreEscalation(store.escalations, run_id=job.run_id, tenant_id=tenant),
            clock=clock,
            model=job.request.model,
            answers=checked.policy(tenant),
            shape=None if job.request.response_schema is None else JsonShape(job.request.response_schema),
        )
        return with_originals(context, guards), metered

    async with checkpointer(url, home / "checkpoints.db", vault) as saver:
        runner = Runner(
            store=store,
            graphs={
                name: catalog.build(name).compile(checkpointer=saver if name == "agent" else None)
                for name in catalog.CATALOG
            },
            make_context=make_context,
            clock=clock,
            run_timeout_s=run_timeout_s,
            reattach_grace_s=reattach_grace_s,
            decisions=Decisions(store, clock, rules, ttl_s=3600),
            safe_answer=lambda _: SAFE,
            barred=barred,
            fleet=None if fleet is None else fleet(store),
        )
        await runner.recover()
        try:
            yield Lite(runner, store, gateway, saver)  # type: ignore[arg-type]
        finally:
            await runner.close()
            await store.close()
