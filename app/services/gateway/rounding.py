"""Costs in whole micro-dollars whose sums are exact: what one call's cost is rounded by goes to the next one's.

A call of three tokens at 0.1 USD a million costs 0.3 micro-dollars; rounded by itself it would cost nothing, and so
would a million of them.
"""

from typing import Final

from app.config.price import PICOS_PER_MICRO

MOST_REMEMBERED: Final = 50_000  # tenants times models; beyond it all are forgotten, at half a micro-dollar each


class Rounding:
    """Of each tenant at each model, the sum of its costs is off by half a micro-dollar at most, however many."""

    def __init__(self) -> None:
        self._rests: dict[tuple[str, str], int] = {}

    def micros(self, tenant_id: str, model: str, picos: int) -> int:
        """The cost of a call that costs exactly so many pico-dollars: one of the two whole amounts next to it."""
        if len(self._rests) >= MOST_REMEMBERED:
            self._rests.clear()
        rest = self._rests.get((tenant_id, model), PICOS_PER_MICRO // 2)
        micros, self._rests[tenant_id, model] = divmod(picos + rest, PICOS_PER_MICRO)
        return micros
