"""Who decides on tool calls, how many of them, until when, and who is told: the `approvals` of the file.

The first rule that fits a call says how it is decided; what it leaves out is as the section itself says. Without a
section whoever holds the scope decides, alone and on calls of their own runs too.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from app.config.part import Environment, Part
from graphs.types import Risk

Days = Annotated[float, Field(gt=0, le=366 * 24 * 3600.0, allow_inf_nan=False, description="In seconds.")]
OnExpiry = Literal["deny", "escalate"]


class ApprovalTerms(Part):
    """How a call is decided. Where neither users nor groups are named, everybody who holds the scope may."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    two_person: bool = Field(default=False, description="Also where the tool policy asks for one person.")
    own_runs: Literal["allow", "refuse"] = Field(
        default="allow", description="Whether somebody may approve what their own run asks for."
    )
    expires_after_s: Days | None = Field(default=None, description="PILOTHOUSE_APPROVAL_TTL_S where absent.")
    on_expiry: OnExpiry = Field(
        default="deny", description="What is not decided in time is not done; escalate: and a person is told."
    )
    webhook_url_env: Environment | None = Field(
        default=None, description="Holds the URL that hears of what waits, is about to expire or is decided."
    )
    warn_before_s: Days = Field(default=3_600.0, description="How long before its end a waiting call is told again.")

    def names(self, user_id: str, groups: frozenset[str]) -> bool:
        """Whether that person is among those who decide."""
        anybody = not self.users and not self.groups
        return anybody or user_id in self.users or not groups.isdisjoint(self.groups)


class ApprovalRule(ApprovalTerms):
    """For calls of these tenants, tools and risks; what is not named is any."""

    tenants: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    risks: tuple[Risk, ...] = ()

    def fits(self, tenant_id: str, tool: str, risk: str) -> bool:
        wanted = ((self.tenants, tenant_id), (self.tools, tool), (self.risks, risk))
        return all(not named or value in named for named, value in wanted)

    def takes_all_of(self, other: "ApprovalRule") -> bool:
        """Whether every call that fits the other fits this one."""
        both = ((self.tenants, other.tenants), (self.tools, other.tools), (self.risks, other.risks))
        return all(not mine or (theirs and set(theirs) <= set(mine)) for mine, theirs in both)


class ApprovalConfig(ApprovalTerms):
    """The section."""

    rules: tuple[ApprovalRule, ...] = ()

    def of(self, tenant_id: str, tool: str = "", risk: str = "") -> ApprovalTerms:
        """How a call is decided; without a tool, what holds for the tenant whatever is called."""
        rule = next((rule for rule in self.rules if rule.fits(tenant_id, tool, risk)), None)
        return self if rule is None else self.of_rule(rule)

    def of_rule(self, rule: ApprovalRule) -> ApprovalTerms:
        """What a rule of the section comes to."""
        said = {name: getattr(rule, name) for name in rule.model_fields_set & ApprovalTerms.model_fields.keys()}
        # Who decides is one thing in two fields: naming groups alone must not leave the section's users in.
        if said.keys() & {"users", "groups"}:
            said = {"users": (), "groups": ()} | said
        return self.model_copy(update=said)

    def faults(self, environment: Mapping[str, str], *, signed: bool) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What is wrong beside the values themselves, each with its path in the section."""
        for number, rule in enumerate(self.rules):
            if any(earlier.takes_all_of(rule) for earlier in self.rules[:number]):
                yield ("rules", number), "no call comes as far as this rule: one before it takes all that it fits"
        parts: list[tuple[tuple[str | int, ...], ApprovalTerms]] = [((), self)]
        parts += [(("rules", number), rule) for number, rule in enumerate(self.rules)]
        for path, part in parts:
            if (variable := part.webhook_url_env) is None:
                continue
            if not environment.get(variable):
                yield (*path, "webhook_url_env"), f"the environment has no {variable}"
            if not signed:
                yield (
                    (*path, "webhook_url_env"),
                    "what is told has to be signed: outbound.webhook_secret_env names none",
                )


def approval_lines(config: ApprovalConfig) -> list[tuple[str, str, str]]:
    """What `pilothouse config check` says: which calls, who decides, and how; the first line that fits holds."""
    lines = [(_calls(rule), config.of_rule(rule)) for rule in config.rules]
    return [(calls, _people(terms), _how(terms)) for calls, terms in [*lines, ("any other", config)]]


def _calls(rule: ApprovalRule) -> str:
    named = {"tenant": rule.tenants, "tool": rule.tools, "risk": rule.risks}
    return "; ".join(f"{what} {', '.join(names)}" for what, names in named.items() if names) or "any"


def _people(terms: ApprovalTerms) -> str:
    named = [*terms.users, *(f"group {group}" for group in terms.groups)]
    return f"{'two of' if terms.two_person else 'one of'} {', '.join(named) or 'all with the scope approvals'}"


def _how(terms: ApprovalTerms) -> str:
    days = "as PILOTHOUSE_APPROVAL_TTL_S says" if terms.expires_after_s is None else f"{terms.expires_after_s:g} s"
    said = [f"waits {days}, then {'denied' if terms.on_expiry == 'deny' else 'denied, and escalated'}"]
    said.append("own runs too" if terms.own_runs == "allow" else "not of one's own runs")
    if terms.webhook_url_env is not None:
        said.append(f"told to {terms.webhook_url_env}")
    return ", ".join(said)
