"""Asks a tenant's rules of an answer, each in a thread of its own and within a time.

A rule that raises or takes too long is broken, and counts as its policy says. A thread cannot be stopped: one that
takes too long goes on to its end, and while too many do, no further rule is begun and every one counts as broken.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal

from graphs.rules import Answered, Rule
from graphs.types import Verdict

log = logging.getLogger("pilothouse.rules")

NAME: Final = "rules"
MOST_AT_ONCE: Final = 32
OnError = Literal["open", "closed"]


class RuleBroken(Exception):
    """The rule said neither yes nor no."""


class RuleBook:
    """The rules of one policy. `refuses` says that an answer they fail may not leave; else it is flagged."""

    def __init__(
        self, rules: Sequence[Rule], *, refuses: bool = False, on_error: OnError = "closed", timeout_s: float = 0.5
    ) -> None:
        self._rules, self._refuses, self._on_error, self._timeout_s = tuple(rules), refuses, on_error, timeout_s
        self._running = threading.Semaphore(MOST_AT_ONCE)

    async def judge(self, answered: Answered) -> tuple[Verdict, ...]:
        """One verdict over all rules, with the names of those that failed; none where there are no rules."""
        if not self._rules:
            return ()
        failed: list[str] = []
        broken: list[str] = []
        for rule in self._rules:
            try:
                reason = await self._ask(rule, answered)
            except RuleBroken as error:
                log.warning("a rule is broken", extra={"rule": rule.name, "cause": str(error)})
                broken.append(f"{rule.name} (broken)")
            else:
                if reason is not None:
                    log.info("a rule failed an answer", extra={"rule": rule.name, "cause": reason})
                    failed.append(rule.name)
        counted = failed + broken if self._on_error == "closed" else failed
        if counted:
            return (Verdict(NAME, "output", "block" if self._refuses else "flag", tuple(failed + broken)),)
        return (Verdict(NAME, "output", "flag" if broken else "allow", tuple(broken)),)

    async def _ask(self, rule: Rule, answered: Answered) -> str | None:
        """The reason why the answer may not leave. Raises RuleBroken."""
        if not self._running.acquire(blocking=False):
            raise RuleBroken("too many rules have not come to an end")
        loop = asyncio.get_running_loop()
        told: asyncio.Future[str | None] = loop.create_future()

        def settle(reason: str | None, cause: str) -> None:
            if not told.done():
                if cause:
                    told.set_exception(RuleBroken(cause))
                else:
                    told.set_result(reason)

        def work() -> None:
            reason, cause = None, ""
            try:
                reason = rule.fails(answered)
            except Exception as error:
                # The edge of the operator's own code: its policy says what a rule that raises counts as.
                cause = type(error).__name__
            self._running.release()
            with suppress(RuntimeError):  # the loop has closed, and nobody waits
                loop.call_soon_threadsafe(settle, reason, cause)

        threading.Thread(target=work, name=f"rule {rule.name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await told
        except TimeoutError:
            raise RuleBroken(f"it took longer than {self._timeout_s:g} s") from None
