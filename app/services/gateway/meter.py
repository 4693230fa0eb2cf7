"""The gateway of one run: whose calls they are, the run's model, its bill, and what it answers when nobody can."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from app.config.schema import Degrade
from app.records import Payer
from app.services.gateway.attempt import Attempt
from app.services.gateway.gateway import NOBODY, ModelGateway, last
from graphs.context import Span, Trace
from graphs.errors import QuotaExhausted, UpstreamError
from graphs.types import Completion, Continuation, Delta, FinishReason, ModelInfo, ModelRequest, Task, Usage

EXTRACTIVE: Final = "extractive"
_REFUSAL_RETRY_S: Final = 3_600.0
# Work beside the answer: nothing that stands in for an answer can stand in for it.
ASIDE: Final[frozenset[Task]] = frozenset(("rewrite", "multi_query", "rerank"))
_GOOD: Final = frozenset(("ok", "cached"))


class RunLimitReached(QuotaExhausted):
    """The run has used what one run may use."""

    code = "run_limit_reached"


@dataclass(frozen=True, slots=True)
class Caps:
    """What one run may use of models, all attempts together; None is without limit.

    A call that begins below a cap may end above it: it is the next one that is refused.
    """

    tokens: int | None = None
    cost_micros: int | None = None

    def left(self, tokens: int, cost_micros: int) -> "Caps":
        """What is left of them for a run that goes on after it has used so much."""
        return Caps(
            None if self.tokens is None else max(0, self.tokens - tokens),
            None if self.cost_micros is None else max(0, self.cost_micros - cost_micros),
        )


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One attempt of a run as it is billed. One that failed has a code, and the usage of what it still consumed."""

    model: str
    model_version: str
    provider: str
    task: Task
    usage: Usage
    latency_ms: float
    first_token_ms: float | None
    finish_reason: FinishReason | None
    error_code: str | None = None
    cost_micros: int = 0
    route: str = ""
    attempt: int = 1
    cached: bool = False


class MeteredGateway:
    """Fills in the run's model, times every call as a span and keeps the run's bill.

    The bill lives here and not in graph state, so a run that fails after the model spoke still has it. Describing and
    counting follow the same choice of model as calling. With a `safe_answer`, a call that no model can serve before
    anything was said is answered without one, and billed to nobody: from the passages where there are some, else by
    that sentence. A call for JSON is not, since a sentence would be no answer to it.
    """

    def __init__(
        self,
        gateway: ModelGateway,
        trace: Trace,
        model: str | None = None,
        *,
        payer: Payer = NOBODY,
        safe_answer: str | None = None,
        caps: Caps = Caps(),
    ) -> None:
        self._gateway, self._trace, self._model, self._payer = gateway, trace, model, payer
        self._safe_answer, self._caps = safe_answer, caps
        self._calls: list[ModelCall] = []
        self._reasons: list[str] = []
        self._continued: list[str] = []
        self._answered_by: tuple[str, str, str] | None = None
        self._step: Degrade | None = None
        self._kept_route = False
        self.failed_over: UpstreamError | None = None
        """Why the run was answered without a model; None while models answer."""

    @property
    def calls(self) -> tuple[ModelCall, ...]:
        """Finished attempts in the order in which they ended, failed and abandoned ones among them."""
        return tuple(self._calls)

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self._calls), Usage())

    @property
    def cost_micros(self) -> int:
        return sum(call.cost_micros for call in self._calls)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why these models were chosen, in words."""
        return tuple(dict.fromkeys(self._reasons))

    @property
    def answered_by(self) -> tuple[str, str, str] | None:
        """Name, version and provider of what answered last, or failed last where nothing has; None before any call."""
        return self._answered_by

    @property
    def continued_by(self) -> tuple[str, ...]:
        """The models that went on with an answer which had broken off, in order."""
        return tuple(self._continued)

    @property
    def cached(self) -> bool:
        """Whether the last answer was kept from an earlier call."""
        answers = [call for call in self._calls if call.task not in ASIDE]
        return bool(answers) and answers[-1].cached

    @property
    def degraded(self) -> str:
        """What the budget's ladder changed for this run, in words; empty for nothing."""
        return "" if self._step is None else told(self._step, route_taken=not self._kept_route)

    async def settle_in(self) -> None:
        """Look once at the budget's ladder; the run keeps to the step that it finds."""
        self._step = await self._gateway.recovery.desk.rung(self._payer)

    def describe(self, model: str | None = None, task: Task = "chat") -> ModelInfo:
        info = self._gateway.describe(self._named(model, task), task)
        if self._step is not None and self._step.context_tokens is not None:
            info = replace(info, context_tokens=min(info.context_tokens, self._step.context_tokens))
        return info

    def count_tokens(self, text: str, model: str | None = None, task: Task = "chat") -> int:
        return self._gateway.count_tokens(text, self._named(model, task), task)

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        """As the port says. Raises QuotaExhausted too, where the run or the budget's ladder ends in a refusal."""
        return self._answer(request, streamed=True)

    async def complete(self, request: ModelRequest) -> Completion:
        return await last(self._answer(request, streamed=False))

    def reranks(self, name: str) -> bool:
        """Whether that is a re-rank model, or a route of such."""
        return self._gateway.router.reranks(name)

    async def rerank(self, question: str, texts: Sequence[str], model: str) -> tuple[float, ...]:
        """How well each text answers, in [0, 1] and the texts' order. Raises as `ModelGateway.rerank`, and as `stream`
        where the run may ask no model any more."""
        attempts: list[Attempt] = []

        def hear(attempt: Attempt) -> None:
            attempts.append(attempt)
            self._calls.append(_called(attempt))

        self._refuse("rerank")
        with self._trace.span(model, "model", inputs={"question": question, "texts": len(texts)}) as span:
            try:
                reranked = await self._gateway.rerank(question, texts, model, self._payer, hear)
            finally:
                _describe(span, attempts, None, "", "rerank")
        return reranked.scores

    def _answer(self, request: ModelRequest, *, streamed: bool) -> AsyncGenerator[Delta | Completion, None]:
        if self._gateway.recovery.desk.last_rung(self._payer) is None:
            return self._answer_once(request, streamed=streamed)
        return self._answer_or_fall(request, streamed=streamed)

    async def _answer_or_fall(
        self, request: ModelRequest, *, streamed: bool
    ) -> AsyncGenerator[Delta | Completion, None]:
        """A call that the budget cannot cover takes the ladder's last step, if that is another one."""
        said = False
        try:
            async with aclosing(self._answer_once(request, streamed=streamed)) as items:
                async for item in items:
                    said = True
                    yield item
        except QuotaExhausted as error:
            step = self._gateway.recovery.desk.last_rung(self._payer)
            if said or error.code != QuotaExhausted.code or step in (None, self._step):
                raise
            self._step = step
        else:
            return
        async with aclosing(self._answer_once(request, streamed=streamed)) as items:
            async for item in items:
                yield item

    async def _answer_once(self, request: ModelRequest, *, streamed: bool) -> AsyncGenerator[Delta | Completion, None]:
        attempts: list[Attempt] = []

        def hear(attempt: Attempt) -> None:
            # A hedge that lost may end after the answer: the bill has it all the same.
            attempts.append(attempt)
            self._calls.append(_called(attempt))

        kept = await self._kept(request, hear)
        if kept is None:
            self._refuse(request.task)
        name = self._gateway.router.name_for(self._named(request.model, request.task), request.task)
        request = replace(request, model=name)
        texts: list[str] = []
        completion: Completion | None = None
        with self._trace.span(name, "model", inputs=_inputs(request)) as span:
            try:
                answer = self._asked(request, hear, streamed=streamed) if kept is None else _again(kept)
                async with aclosing(answer) as items:
                    async for item in items:
                        if isinstance(item, Completion):
                            completion = item
                        else:
                            texts.append(item.text)
                            if isinstance(item, Continuation):
                                self._continued.append(item.model)
                        yield item
            except UpstreamError as error:
                instead = self._safe_answer is not None and request.task not in ASIDE
                if texts or not instead or request.response_schema is not None:
                    raise
                self.failed_over = error
                async for item in self._without_model(request, self._safe_answer or ""):
                    if isinstance(item, Completion):
                        completion = item
                    yield item
            finally:
                if request.task not in ASIDE:
                    self._remember(attempts, completion)
                _describe(span, attempts, completion, "".join(texts), request.task)

    def _asked(
        self, request: ModelRequest, report: Callable[[Attempt], None], *, streamed: bool
    ) -> AsyncGenerator[Delta | Completion, None]:
        step = self._step
        granted = frozenset({EXTRACTIVE}) if step is not None and step.answer == EXTRACTIVE else frozenset[str]()
        plan, prompt_tokens = self._gateway.plan(request, self._payer, granted)
        self._reasons += plan.reasons
        return self._gateway.follow(plan, prompt_tokens, request, self._payer, report, streamed=streamed)

    async def _kept(self, request: ModelRequest, report: Callable[[Attempt], None]) -> Completion | None:
        """A kept answer of any age, where the ladder wants one first: of the route that was asked, else of its own."""
        if self._step is None or not self._step.cached:
            return None
        router, task = self._gateway.router, request.task
        wanted = (request.model or self._model, self._named(request.model, task))
        for name in dict.fromkeys(router.name_for(named, task) for named in wanted):
            kept = await self._gateway.recall(replace(request, model=name), self._payer, report)
            if kept is not None:
                return kept
        return None

    def _remember(self, attempts: list[Attempt], completion: Completion | None) -> None:
        if attempts:
            attempt = _answering(attempts)
            self._answered_by = (attempt.target.name, attempt.bill.model_version, attempt.target.info.provider)
        if completion is not None and not any(attempt.bill.outcome in _GOOD for attempt in attempts):
            self._answered_by = (completion.model, completion.model_version, completion.provider)

    def _named(self, model: str | None, task: Task) -> str | None:
        """The run's own model unless the request names one; the ladder's goes before both."""
        if self._step is not None:
            if self._step.answer == EXTRACTIVE and task == "rag":
                return EXTRACTIVE
            if (route := self._gateway.router.led_to(self._step.route, task)) is not None:
                return route
            self._kept_route = self._step.route is not None
        return model or self._model

    def _refuse(self, task: Task) -> None:
        """Raises QuotaExhausted where no model may be asked any more."""
        step, caps = self._step, self._caps
        if step is not None and (step.answer == "refuse" or (step.answer == EXTRACTIVE and task != "rag")):
            raise QuotaExhausted("the month's budget is used up", retry_after_s=_REFUSAL_RETRY_S)
        used = self.usage
        if caps.tokens is not None and used.input_tokens + used.output_tokens >= caps.tokens:
            raise RunLimitReached(f"this run has used its {caps.tokens} tokens")
        if caps.cost_micros is not None and self._calls and self.cost_micros >= caps.cost_micros:
            raise RunLimitReached(f"this run has used its {caps.cost_micros / 1e6:g} USD")

    async def _without_model(self, request: ModelRequest, sentence: str) -> AsyncGenerator[Delta | Completion, None]:
        """The floor: quotes from the passages where the run has some, else a fixed sentence."""
        floor = self._gateway.router.targets.get(EXTRACTIVE)
        said = False
        if request.task == "rag" and request.grounding and floor is not None:
            try:
                async with aclosing(floor.provider.stream(replace(request, model=EXTRACTIVE))) as items:
                    async for item in items:
                        said = True
                        yield item
                    return
            except UpstreamError:
                if said:
                    raise
        yield Delta(sentence)
        yield Completion(sentence, "none", "", "pilothouse", Usage(), "stop")


def told(step: Degrade, *, route_taken: bool = True) -> str:
    """A step of the ladder in words, for the answer card."""
    not_taken = "" if route_taken else " (not taken: no model of it was measured as good as it demands)"
    parts = [
        f"route {step.route}{not_taken}" if step.route is not None else "",
        f"at most {step.context_tokens} tokens of prompt" if step.context_tokens is not None else "",
        "cached answers" if step.cached else "",
        f"answer: {step.answer}" if step.answer is not None else "",
    ]
    return f"from {step.at:.0%} of the budget: " + ", ".join(filter(None, parts))


async def _again(kept: Completion) -> AsyncGenerator[Delta | Completion, None]:
    yield Delta(kept.text)
    yield kept


def _answering(attempts: list[Attempt]) -> Attempt:
    """The attempt that answered; the last one where none did. A hedge that lost may end after the one that won."""
    return next((attempt for attempt in reversed(attempts) if attempt.bill.outcome in _GOOD), attempts[-1])


def _called(attempt: Attempt) -> ModelCall:
    bill = attempt.bill
    return ModelCall(
        model=attempt.target.name,
        model_version=bill.model_version,
        provider=attempt.target.info.provider,
        task=attempt.task,
        usage=bill.usage,
        latency_ms=bill.latency_ms,
        first_token_ms=bill.first_token_ms,
        finish_reason=attempt.finish_reason,
        error_code=bill.error_code or None,
        cost_micros=bill.cost_micros,
        route=attempt.route,
        attempt=attempt.number,
        cached=bill.outcome == "cached",
    )


def _describe(span: Span, attempts: list[Attempt], completion: Completion | None, heard: str, task: Task) -> None:
    usage = sum((attempt.bill.usage for attempt in attempts), Usage())
    answered = _answering(attempts) if attempts else None
    span.set(
        model=completion.model if completion else (answered.target.name if answered else ""),
        model_version=answered.bill.model_version if answered else "",
        provider=answered.target.info.provider if answered else "",
        task=task,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        tokens_estimated=usage.estimated,
        cost_micros=sum(attempt.bill.cost_micros for attempt in attempts),
        first_token_ms=answered.bill.first_token_ms if answered else None,
        finish_reason=answered.finish_reason if answered else None,
        attempts=[
            {
                "model": attempt.target.name,
                "outcome": attempt.bill.outcome,
                "errorCode": attempt.bill.error_code,
                "latencyMs": attempt.bill.latency_ms,
            }
            for attempt in attempts
        ],
        outputs={
            "text": completion.text if completion else heard,
            "tool_calls": [asdict(proposal) for proposal in completion.tool_calls] if completion else [],
        },
    )


def _inputs(request: ModelRequest) -> dict[str, Any]:
    return {
        "messages": [
            {"role": message.role, "content": message.content}
            | ({"tool_calls": [asdict(call) for call in message.tool_calls]} if message.tool_calls else {})
            for message in request.messages
        ],
        "tools": [spec.name for spec in request.tools],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "schema": request.response_schema,
    }
