"""A search outside of a run, with what was made of its question: as the RAG graph would look for passages."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from app.ids import new_id
from app.policy import NO_WISH, policy_of, rerankers
from app.records import Payer, Principal, SearchWish
from app.services.gateway.meter import MeteredGateway
from app.services.retrieval.look import Found
from app.services.retrieval.query import Query
from app.services.retrieval.rerank import OWN
from app.services.retrieval.retriever import TenantRetriever
from app.telemetry.spans import RunTrace
from graphs.policy import RetrievalPolicy
from graphs.rag.wording import Variants, Wording, Writer, varied, worded
from graphs.types import Message

if TYPE_CHECKING:
    from app.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Searched:
    """Times in milliseconds."""

    found: Found
    wording: Wording
    variants: Variants
    reword_ms: float
    vary_ms: float


async def search(
    bench: "Workbench",
    who: Principal,
    query: Query,
    *,
    collection: str | None,
    as_of: str | None = None,
    history: Sequence[str] = (),
    wish: SearchWish = NO_WISH,
) -> Searched:
    """The query's own rerank, variants and fusion are replaced by the policy's.

    Models are asked at the caller's cost, and only where the policy wants one. Raises as `TenantRetriever.look`,
    and QuotaExhausted, Forbidden where a model is wanted and the caller may make no call at all.
    """
    # A search outside of a run has no trace to go into; its spans are let go.
    trace = RunTrace("search")
    payer = Payer(who.tenant_id, who.user_id, who.key_id, "search", new_id())
    gateway = MeteredGateway(bench.gateway, trace, payer=payer)
    policy = policy_of(bench.config.retrieval, collection, gateway, wish)
    asked = tuple(Message("user", text) for text in history)
    async with _admitted(bench, payer, policy, asked):
        moments = [time.perf_counter()]
        writer = Writer(gateway, bench.prompts)
        wording = await worded(query.text, asked, policy, writer)
        moments.append(time.perf_counter())
        variants = await varied(wording.query, policy, writer)
        moments.append(time.perf_counter())
        retriever = TenantRetriever(bench.library, who.tenant_id, trace, who.sight, rerankers(gateway))
        found = await retriever.look(
            query.reworded(wording.query, variants.texts, policy.fusion, policy.rerank),
            collection=collection,
            as_of=as_of,
        )
    reword_ms, vary_ms = (round((b - a) * 1000, 3) for a, b in pairwise(moments))
    return Searched(found, wording, variants, reword_ms, vary_ms)


@asynccontextmanager
async def _admitted(
    bench: "Workbench", payer: Payer, policy: RetrievalPolicy, asked: Sequence[Message]
) -> AsyncIterator[None]:
    """A search that asks a model is a request like others; one that asks none passes no limit."""
    if not (policy.variants or policy.rerank not in OWN or (policy.rewrite == "model" and asked)):
        yield
        return
    ticket = await bench.desk.admit(payer)
    try:
        yield
    finally:
        ticket.release()
