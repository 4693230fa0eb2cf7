"""The output side of the guard for each tenant, by the configuration's `answers:`."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from app.config.answers import AnswersConfig, TenantAnswers, load_rule
from app.services.guardrails.instructions import Instructions, mark_pattern
from app.services.guardrails.links import link_patterns
from app.services.guardrails.markup import markup_patterns
from app.services.guardrails.output import OutputGuard
from app.services.guardrails.patterns import SECRETS, Pattern
from app.services.guardrails.pii import PERSONAL
from app.services.guardrails.rulebook import RuleBook
from graphs.policy import AnswerPolicy
from graphs.prompts import Prompt

AHEAD_CHARS: Final = 16  # the longest that a form of personal data looks at behind itself is a phone's extension


class Answers:
    """Tenants with nothing of their own share one guard."""

    def __init__(
        self,
        config: AnswersConfig,
        image_hosts: Collection[str] = (),
        *,
        prompts: Iterable[Prompt] = (),
        mark: str = "",
    ) -> None:
        """`image_hosts` are host names, without port, whose images may appear in answers; `mark` is that of `prompts`.

        Raises Invalid.
        """
        self._image_hosts = frozenset(host.lower() for host in image_hosts)
        self._marks: tuple[Pattern, ...] = (mark_pattern(mark),) if mark else ()
        self._instructions = Instructions(section.text for prompt in prompts for section in prompt.sections)
        self._everybody = (config.policy, self._guard(config))
        own = {name: config.of(name) for name in config.tenants}
        self._own = {name: (answers.policy, self._guard(answers)) for name, answers in own.items()}

    def policy(self, tenant_id: str) -> AnswerPolicy:
        return self._own.get(tenant_id, self._everybody)[0]

    def guard(self, tenant_id: str) -> OutputGuard:
        return self._own.get(tenant_id, self._everybody)[1]

    def _guard(self, answers: TenantAnswers) -> OutputGuard:
        patterns = (*SECRETS, *markup_patterns(self._image_hosts), *self._marks)
        if answers.links != "keep":
            named = answers.link_hosts if answers.links == "listed" else ()
            patterns += link_patterns({host.lower() for host in named} | self._image_hosts)
        if answers.personal == "redact":
            patterns += tuple(replace(each, ahead_chars=AHEAD_CHARS) for each in PERSONAL)
        rules = RuleBook(
            [load_rule(path) for path in answers.rules],
            refuses=answers.rules_then == "refuse",
            on_error=answers.rules_on_error,
            timeout_s=answers.rules_timeout_s,
        )
        flagged = PERSONAL if answers.personal == "flag" else ()
        return OutputGuard(patterns, rules, self._instructions, flagged=flagged)
