"""Performs jobs: with the rights of who asked, as they are now, and with an end for whatever happens."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from app.records import Principal, Scope
from app.services.jobs.ports import JobFailure, JobKind
from app.services.jobs.rows import failure
from app.services.jobs.shelf import Claim, Shelf
from app.services.jobs.work import Overtaken, Work
from graphs.errors import Forbidden, PilothouseError, UpstreamError

log = logging.getLogger("pilothouse.jobs")

MAX_FAILURES: Final = 8  # with the pauses below, a quarter of an hour of something being away
FIRST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 300.0

Check = Callable[[Principal], Awaitable[Principal]]
"""The principal with the groups that it is in now. Raises a PilothouseError where it may not act any more."""


class Worker:
    """The jobs in the hands of this process. An engine has `perform` run on the loop that the kinds live on."""

    def __init__(self, shelf: Shelf, kinds: Mapping[str, JobKind], check: Check) -> None:
        self._shelf, self._kinds, self._check = shelf, kinds, check
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._fences: dict[str, int] = {}
        self._closing = False

    async def perform(self, job_id: str, attempt: int) -> None:
        """Raises only what the store does; then nothing is known of the end, and the attempt is lost."""
        if (claim := await self._shelf.claim(job_id, attempt)) is None:
            return
        if self._closing:
            await self._shelf.put_back(claim, pause_s=0)
            return
        task = asyncio.create_task(self._perform(claim), name=f"job {job_id}")
        self._tasks[job_id], self._fences[job_id] = task, claim.fence
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            if self._tasks.get(job_id) is task:
                del self._tasks[job_id], self._fences[job_id]
        if not task.cancelled():
            task.result()

    async def call_off(self) -> None:
        """Stop the jobs that were cancelled, or that another worker has taken."""
        if not (held := dict(self._fences)):  # as it stands: what is taken on during the look was not looked at
            return
        for job_id in await self._shelf.overtaken(held):
            if self._fences.get(job_id) == held[job_id]:
                self._tasks[job_id].cancel()

    async def close(self) -> None:
        """Take on nothing more, and give back what is in hand."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _perform(self, claim: Claim) -> None:
        state = claim.state
        try:
            kind = self._kind(state.kind)
            now = replace(state, principal=await self._as_now(state.principal, kind.scope))
            result = await kind.perform(Work(self._shelf.database, now, claim.fence))
            await self._shelf.end(claim, "succeeded", result=result)
        except asyncio.CancelledError:
            # Called off, and the fence says so; or this process stops, and another goes on.
            await self._shelf.put_back(claim, pause_s=0)
        except Overtaken:
            log.info("a job was taken from this worker", extra={"job_id": state.job_id})
        except (UpstreamError, OSError) as error:
            await self._again(claim, error)
        except PilothouseError as error:
            await self._shelf.end(claim, "failed", error=failure(error))
        except Exception:
            # The loop of a worker: one job's end must not be another's.
            log.exception("a job failed", extra={"job_id": state.job_id, "kind": state.kind})
            unknown = JobFailure("internal", "internal_error", "The job failed; the log has the cause.")
            await self._shelf.end(claim, "failed", error=unknown)

    def _kind(self, name: str) -> JobKind:
        if (kind := self._kinds.get(name)) is None:
            raise UpstreamError(f"this worker knows no jobs of the kind {name}; a newer one may")
        return kind

    async def _as_now(self, principal: Principal, scope: Scope | None) -> Principal:
        if scope is not None and not principal.may(scope):
            raise Forbidden(f"the job's owner lacks the scope {scope}")
        return await self._check(principal)

    async def _again(self, claim: Claim, error: UpstreamError | OSError) -> None:
        """Something was away, or the disk is full: later it may not be."""
        log.warning("a job has to wait", extra={"job_id": claim.job_id, "failures": claim.failures + 1}, exc_info=error)
        told = failure(error) if isinstance(error, UpstreamError) else JobFailure("internal", "io_error", "no disk")
        if claim.failures + 1 >= MAX_FAILURES:
            await self._shelf.end(claim, "failed", error=told)
            return
        pause_s = min(FIRST_PAUSE_S * 2**claim.failures, LONGEST_PAUSE_S)
        if isinstance(error, UpstreamError) and error.retry_after_s is not None:
            pause_s = max(pause_s, min(error.retry_after_s, LONGEST_PAUSE_S))
        await self._shelf.put_back(claim, pause_s=pause_s, error=told)
