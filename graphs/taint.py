"""What a run has read, whom each text is from, and what that makes of a call that a model proposes.

A model that has read what anybody may have written does perhaps what stands there, so from then on its calls count as
one step riskier than their tools are. What reads the tenant's own data and sends nothing anywhere is exempt; any other
reading sends its arguments to somebody, and what they are made of cannot always be told from how they look.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from graphs.likeness import Text, decodings, find
from graphs.types import Origin, Risk, Ruled, Ruling, SourceKind, ToolProposal, ToolSpec, Trust

RISKS: Final[tuple[Risk, ...]] = ("read", "write", "outbound", "destructive")
STRICTNESS: Final[tuple[Ruled, ...]] = ("allow", "ask", "two_person", "deny")
TRUSTS: Final[tuple[Trust, ...]] = ("untrusted", "tenant", "operator")
MAX_COMPARED_CHARS: Final = 2_000_000
MAX_ORIGINS: Final = 8
_NAMED: Final = 3
_NAME_CHARS: Final = 80

Basis = Literal["clean", "read", "document", "tool", "earlier"]
"""What a call rests on: nothing untrusted, something untrusted that was read, or a repeated text of that kind."""

Policy = Callable[[str, Risk, Basis], tuple[Ruled, str]]
"""What becomes of a call of that tool at that risk on that basis, and which rule says so ("" for none)."""


@dataclass(frozen=True, slots=True)
class Source:
    """One text that a run has read. `name` is the document, tool or message it comes from."""

    kind: SourceKind
    name: str
    trust: Trust
    text: str


class Reading:
    """All that a run has read so far. Nothing is compared before it is asked for."""

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self.sources = tuple(sources)
        self.untrusted = tuple(source for source in self.sources if source.trust == "untrusted" and source.text)

    @property
    def trust(self) -> Trust:
        """That of the least trusted text in it, and so of whatever is made of it."""
        return least(source.trust for source in self.sources if source.text)

    @property
    def is_whole(self) -> bool:
        """Whether all of it can be compared; of more than the bound only the beginning is."""
        return sum(len(source.text) for source in self.sources) <= MAX_COMPARED_CHARS

    @cached_property
    def _compared(self) -> tuple[list[tuple[Source, Text]], list[Text]]:
        untrusted: list[tuple[Source, Text]] = []
        known: list[Text] = []
        left = MAX_COMPARED_CHARS
        for source in self.sources:
            text, left = source.text[:left], max(0, left - len(source.text))
            if source.trust == "untrusted":
                untrusted.append((source, Text(text)))
                untrusted += [(source, Text(decoded)) for decoded in decodings(text)]
            elif source.kind != "tool":  # a tool of ours repeats its arguments, whoever worded them
                known.append(Text(text))
        return untrusted, known

    def origins(self, arguments: Mapping[str, Any]) -> tuple[Origin, ...]:
        """Which arguments repeat which untrusted text, at most eight."""
        if not self.untrusted:
            return ()
        untrusted, known = self._compared
        found = find(arguments, [text for _, text in untrusted], known)
        return tuple(
            Origin(place.path, source.kind, source.name, source.trust, place.match, place.quote)
            for place in found[:MAX_ORIGINS]
            for source in (untrusted[place.number][0],)
        )


def least(trusts: Iterable[Trust]) -> Trust:
    """The lowest of them; of none, the operator's."""
    return min(trusts, key=TRUSTS.index, default="operator")


def is_stricter(one: Ruling, other: Ruling) -> bool:
    return STRICTNESS.index(one.then) > STRICTNESS.index(other.then)


def ordinary(tool: str, risk: Risk, basis: Basis) -> tuple[Ruled, str]:
    """Without a policy of one's own: reading goes on, everything else waits for one person."""
    return ("allow" if risk == "read" else "ask"), ""


def rule(spec: ToolSpec, proposal: ToolProposal, read: Reading, policy: Policy = ordinary) -> Ruling:
    """What becomes of a call in a run that has read that. One that rests on several things is ruled on for each, and
    the strictest holds."""
    origins = read.origins(proposal.arguments)
    reasons = [f"{origin.argument} repeats {_called(origin.kind, origin.name)}" for origin in origins]
    risk = spec.risk
    if read.untrusted and not (risk == "read" and spec.own):
        reasons.append(f"the run has read untrusted text: {_listed(read.untrusted)}")
        risk = RISKS[min(RISKS.index(risk) + 1, len(RISKS) - 1)]
    if risk != spec.risk:
        reasons.append(f"so it counts as {risk}, not as {spec.risk}")
    ruled = [policy(spec.name, risk, basis) for basis in _bases(origins, read)]
    then, by = max(ruled, key=lambda each: STRICTNESS.index(each[0]))
    return Ruling(then, risk, (*reasons, by) if by else tuple(reasons), origins)


def _bases(origins: Sequence[Origin], read: Reading) -> list[Basis]:
    # Of more than can be compared, everything may be repeated.
    kinds = {each.kind for each in (origins if read.is_whole else read.untrusted)}
    repeated: tuple[Basis, ...] = ("document", "tool", "earlier")
    return [kind for kind in repeated if kind in kinds] or ["read" if read.untrusted else "clean"]


def _listed(sources: Sequence[Source]) -> str:
    names = list(dict.fromkeys(_called(source.kind, source.name) for source in sources))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _called(kind: SourceKind, name: str) -> str:
    name = name[:_NAME_CHARS]
    said = {"document": f"the document {name}", "tool": f"what {name} said", "earlier": "an earlier answer"}
    return said.get(kind, f"the {kind}")
