"""A batch of runs as a job: any chat, RAG or agent run a line, through the runner, under the caller's own quotas.

The run's id is written down before the run begins. So an attempt after a crash reads what became of a line, and begins
it anew only if its run died with its process: what was answered is answered, and paid, once.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

from app.ids import new_id
from app.jobs.items import RUNS, run_request
from app.records import AnswerCard, Principal, RunRequest, Scope
from app.runner import Runner
from app.services.jobs.ports import ItemEnd, ItemState, JobFailure, JobWork
from app.services.jobs.rows import failure
from app.services.jobs.worker import Check
from graphs.errors import Interrupted, Missing, PilothouseError, QuotaExhausted, UpstreamError

LINES_AT_ONCE: Final = 4
QUOTA_TRIES: Final = 5
LONGEST_WAIT_S: Final = 60.0  # for a rate limit; a budget that comes back next month fails the line


class RunsJob:
    """An item is a line, named by the caller; its `ref` is the id of its run, and the run has the answer."""

    name = RUNS
    scope: Scope = "chat"

    def __init__(self, runner: Runner, check: Check) -> None:
        """`check` is asked before each line: a batch may take longer than its owner keeps a group."""
        self._runner, self._check = runner, check

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        lines = work.open_items()
        turn = asyncio.Lock()
        doing = [asyncio.create_task(self._lines(work, lines, turn)) for _ in range(LINES_AT_ONCE)]
        try:
            await asyncio.gather(*doing)
        finally:
            for task in doing:
                task.cancel()
            await asyncio.wait(doing)
        counts = await work.counts()
        return {"succeeded": counts.get("succeeded", 0), "failed": counts.get("failed", 0)}

    async def _lines(self, work: JobWork, lines: AsyncIterator[ItemState], turn: asyncio.Lock) -> None:
        """Do line after line, as long as there are any. The iterator is shared, and can be asked by one at a time."""
        while True:
            async with turn:
                line = await anext(lines, None)
            if line is None:
                return
            await work.settle([await self._line(work, line)])

    async def _line(self, work: JobWork, line: ItemState) -> ItemEnd:
        try:
            principal = await self._check(work.state.principal)
            card = await self._earlier(principal, line) or await self._run(work, principal, line)
        except UpstreamError:
            raise
        except PilothouseError as refused:
            return ItemEnd(line.number, error=failure(refused))
        error = card.error
        if error is not None and error.code == Interrupted.code:
            raise UpstreamError("this process stops")  # the run went with it, and the line is begun anew elsewhere
        return ItemEnd(
            line.number,
            {"requestId": card.request_id, "status": card.status},
            None if error is None else JobFailure(error.kind, error.code, error.message),
        )

    async def _earlier(self, principal: Principal, line: ItemState) -> AnswerCard | None:
        """What an earlier attempt came to; None if there was none, or its run died with its process."""
        if line.ref is None:
            return None
        await self._runner.take_over()
        try:
            card = await self._runner.card(principal, line.ref)
        except Missing:
            return None
        if card.status == "running":
            raise UpstreamError("a run of an earlier attempt has not ended yet")
        died = card.status == "cancelled" or (card.error is not None and card.error.code == Interrupted.code)
        return None if died else card

    async def _run(self, work: JobWork, principal: Principal, line: ItemState) -> AnswerCard:
        run_id = new_id()
        await work.begin(line.number, run_id)
        await self._start(principal, run_request(line.input), run_id)
        try:
            return await self._runner.attend(principal, run_id)
        except asyncio.CancelledError:
            with suppress(PilothouseError):
                await self._runner.cancel(principal, run_id)
            raise

    async def _start(self, principal: Principal, request: RunRequest, run_id: str) -> None:
        """Raises what the runner refuses with; a rate limit is waited out as long as that is short."""
        for tries_left in reversed(range(QUOTA_TRIES)):
            try:
                await self._runner.start(principal, request, watched=False, run_id=run_id)
            except QuotaExhausted as error:
                wait_s = error.retry_after_s
                if not tries_left or wait_s is None or wait_s > LONGEST_WAIT_S:
                    raise
                await asyncio.sleep(wait_s)
            else:
                return
