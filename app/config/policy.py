"""Which calls of tools may run, wait for people or may not: `tool_policy:` of the file.

The first rule that fits a call decides, as in a firewall: who reads the file from the top knows what holds. A call that
no rule fits goes the ordinary way: reading is allowed, everything else waits for one person.
"""

from collections.abc import Iterator
from typing import Annotated, Final, get_args

from pydantic import Field, StringConstraints, field_validator

from app.config.part import Part
from graphs.taint import RISKS, Basis, ordinary
from graphs.types import Risk, Ruled

ToolPattern = Annotated[
    str,
    StringConstraints(pattern=r"^([A-Za-z0-9_-]{1,64}|[A-Za-z0-9_-]{0,63}\*)$"),
]
BASES: Final[tuple[Basis, ...]] = get_args(Basis)
_OTHER: Final = "\0"  # stands for every name that no rule mentions

Box = tuple[frozenset[str], ...]

Path_ = tuple[str | int, ...]


class ToolRule(Part):
    """What becomes of the calls that it fits; what it does not name fits every call."""

    tool: tuple[ToolPattern, ...] | None = Field(default=None, description="Names, or beginnings that end in *.")
    risk: tuple[Risk, ...] | None = Field(default=None, description="As it counts in the run, perhaps raised.")
    origin: tuple[Basis, ...] | None = Field(
        default=None,
        description="clean: nothing untrusted was read; read: something was; document, tool, earlier: an argument "
        "repeats such a text.",
    )
    tenant: tuple[str, ...] | None = None
    then: Ruled

    @field_validator("tool", "risk", "origin", "tenant", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    def fits(self, tool: str, risk: Risk, origin: Basis, tenant: str) -> bool:
        return (
            (self.tool is None or any(named(pattern, tool) for pattern in self.tool))
            and (self.risk is None or risk in self.risk)
            and (self.origin is None or origin in self.origin)
            and (self.tenant is None or tenant in self.tenant)
        )


class ToolExample(Part):
    """A claim about the rules that `pilothouse config check` runs."""

    tool: str
    risk: Risk
    origin: Basis = "clean"
    tenant: str = "any"
    expect: Ruled


class ToolPolicy(Part):
    """The rules in their order, and what they are claimed to do."""

    rules: tuple[ToolRule, ...] = Field(default=(), max_length=256)
    examples: tuple[ToolExample, ...] = Field(default=(), max_length=1_000)

    def ruled(self, tenant: str, tool: str, risk: Risk, origin: Basis) -> tuple[Ruled, str]:
        """What becomes of such a call, and which rule says so; "" where none does."""
        number = self._first(tool, risk, origin, tenant)
        if number is None:
            return ordinary(tool, risk, origin)
        then = self.rules[number].then
        return then, f"rule {number + 1} of tool_policy says {then}"

    def faults(self) -> Iterator[tuple[Path_, str]]:
        """Rules that no call can reach, because those before them take all that they fit; and examples that fail."""
        for number in self._unreached():
            yield ("rules", number), "no call comes as far as this rule: those before it take all that it fits"
        for number, example in enumerate(self.examples):
            then, by = self.ruled(example.tenant, example.tool, example.risk, example.origin)
            if then != example.expect:
                told = by or f"no rule fits, so it is {then}"
                yield ("examples", number, "expect"), f"{example.expect} was expected; {told}"

    def _first(self, tool: str, risk: Risk, origin: Basis, tenant: str) -> int | None:
        numbered = enumerate(self.rules)
        return next((number for number, rule in numbered if rule.fits(tool, risk, origin, tenant)), None)

    def _unreached(self) -> Iterator[int]:
        """The rules that decide for no call."""
        patterns = [pattern for rule in self.rules for pattern in rule.tool or ()]
        tools = {pattern.removesuffix("*") + (_OTHER if pattern.endswith("*") else "") for pattern in patterns} | {
            _OTHER
        }
        tenants = {_OTHER, *(tenant for rule in self.rules for tenant in rule.tenant or ())}
        boxes = [_box(rule, tools, tenants) for rule in self.rules]
        for number, box in enumerate(boxes):
            left = [box]
            for earlier in boxes[:number]:
                left = [piece for part in left for piece in _minus(part, earlier)]
            if not left:
                yield number


def policy_lines(policy: ToolPolicy) -> list[tuple[str, str]]:
    """What `pilothouse config check` says: which calls, and what becomes of them; the first line that fits holds."""
    lines = [(_calls(rule), rule.then.replace("_", " ")) for rule in policy.rules]
    return [*lines, ("any other", "allow where it reads, else ask")]


def _calls(rule: ToolRule) -> str:
    told = {"tenant": rule.tenant, "tool": rule.tool, "risk": rule.risk, "origin": rule.origin}
    return "; ".join(f"{what} {', '.join(names)}" for what, names in told.items() if names is not None) or "any"


def named(pattern: str, tool: str) -> bool:
    """Whether the pattern of a rule, a name or a beginning, means that tool."""
    return tool.startswith(pattern[:-1]) if pattern.endswith("*") else tool == pattern


def _box(rule: ToolRule, tools: set[str], tenants: set[str]) -> Box:
    """The calls that a rule fits. One name stands for all that the rules cannot tell from it."""
    return (
        frozenset(name for name in tools if rule.tool is None or any(named(one, name) for one in rule.tool)),
        frozenset(RISKS if rule.risk is None else rule.risk),
        frozenset(BASES if rule.origin is None else rule.origin),
        frozenset(tenants if rule.tenant is None else rule.tenant),
    )


def _minus(box: Box, other: Box) -> list[Box]:
    """What is left of it, in pieces that do not overlap."""
    pieces: list[Box] = []
    rest = list(box)
    for axis, (mine, theirs) in enumerate(zip(box, other, strict=True)):
        if mine - theirs:
            pieces.append((*rest[:axis], mine - theirs, *rest[axis + 1 :]))
        rest[axis] = mine & theirs
    return pieces if all(rest) else [box]
