"""The sums that every view of the ledger shows."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Totals:
    """Of ended attempts. A call may take several attempts; each is booked with its own tokens and cost.

    `estimated` are attempts whose provider said nothing about their usage, so that our tokenizer counted;
    `estimated_micros` is what they cost of `cost_micros`. Cached input tokens are a part of the input tokens.
    """

    calls: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_micros: int = 0
    estimated: int = 0
    estimated_micros: int = 0
    failed: int = 0
    cancelled: int = 0
    cached: int = 0

    @property
    def estimated_share(self) -> float:
        """The part of the attempts that is estimated, in [0, 1]."""
        return self.estimated / self.attempts if self.attempts else 0.0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Totals)))
