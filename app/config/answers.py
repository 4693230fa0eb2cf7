"""`answers:` in pilothouse.yaml: what becomes of answers that their checks do not pass, for everybody and by tenant."""

from collections.abc import Iterator
from importlib import import_module
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from app.config.part import Host, Part, Seconds, laid_over, tenant_lines
from graphs.errors import Invalid
from graphs.policy import AnswerPolicy, Unsupported
from graphs.rules import Rule

Links = Literal["keep", "listed", "text"]
ImportPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]


class TenantAnswers(Part):
    """Of one tenant. With `remove`, `refuse` or rules that refuse, an answer is held until it is checked."""

    unsupported: Unsupported = Field(default="flag", description="Of sentences that no passage of the run supports.")
    links: Links = Field(default="keep", description="listed: only to link_hosts and image_hosts; text: to nowhere.")
    link_hosts: tuple[Host, ...] = ()
    personal: Literal["keep", "flag", "redact"] = Field(
        default="keep", description="Mail and public network addresses, phone and social security numbers."
    )
    rules: tuple[ImportPath, ...] = Field(default=(), description="module:name of each graphs.rules.Rule.")
    rules_then: Literal["flag", "refuse"] = "refuse"
    rules_on_error: Literal["open", "closed"] = Field(
        default="closed", description="closed: a rule that raises or takes too long counts as failed."
    )
    rules_timeout_s: Seconds = 0.5
    refused_answer: Text = "I may not give that answer."
    safe: Text | None = Field(
        default=None, description="What users read where policy or a failure stopped a run; the file's safe_answer."
    )

    @property
    def policy(self) -> AnswerPolicy:
        return AnswerPolicy(self.unsupported, bool(self.rules) and self.rules_then == "refuse", self.refused_answer)


class AnswersConfig(TenantAnswers):
    """For everybody, and what is different for the tenants that are listed."""

    tenants: dict[str, TenantAnswers] = Field(default_factory=dict)

    def of(self, tenant_id: str) -> Self:
        return laid_over(self, self.tenants.get(tenant_id))

    def faults(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Where in this part a rule is named that is none, and why."""
        parts: dict[tuple[str, ...], TenantAnswers] = {(): self}
        parts |= {("tenants", name): tenant for name, tenant in self.tenants.items()}
        for at, part in parts.items():
            for index, path in enumerate(part.rules):
                try:
                    load_rule(path)
                except Invalid as error:
                    yield (*at, "rules", index), error.message


def load_rule(path: str) -> Rule:
    """The rule that `module:name` names. Raises Invalid."""
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name, None)
    except Exception as error:
        # The operator's own module: whatever it raises when it is read means that it cannot be.
        raise Invalid(f"{module} cannot be imported ({type(error).__name__})") from error
    if not isinstance(found, Rule):
        raise Invalid(f"{path} is no rule: make it one with graphs.rules.rule")
    return found


def answer_lines(config: AnswersConfig) -> list[tuple[str, str]]:
    """What `pilothouse config check` says: who, and what holds for them."""
    return tenant_lines(_line, config, config.of, config.tenants)


def _line(answers: TenantAnswers) -> str:
    said = [f"unsupported: {answers.unsupported}", f"personal: {answers.personal}", f"links: {answers.links}"]
    if answers.links == "listed":
        said.append(f"to {', '.join(answers.link_hosts) or 'nowhere'}")
    if answers.rules:
        said.append(f"rules: {', '.join(answers.rules)} ({answers.rules_then}, {answers.rules_on_error})")
    if answers.policy.holds(grounded=True):
        said.append("held until checked")
    return ", ".join(said)
