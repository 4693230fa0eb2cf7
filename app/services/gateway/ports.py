"""What the gateway needs of its neighbours: somebody who reserves money and tokens, and books what was used."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.config.schema import Degrade
from app.records import Bill, Charge, Payer
from graphs.errors import Forbidden


class Hold(Protocol):
    """A reserved call."""

    @property
    def granted_micros(self) -> int | None:
        """What the tightest budget granted; None where none bounds the call."""
        ...

    async def recorded(self) -> None:
        """Wait until the call is written down; before anything of its answer leaves."""
        ...

    async def settle(self, bill: Bill) -> None:
        """Book what it cost. Only the first time counts."""
        ...


class Ticket(Protocol):
    """An admitted request. `headers` tell the caller of its limits."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def release(self) -> None: ...


class Desk(Protocol):
    """Reserves calls for a payer. Raises QuotaExhausted."""

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> Hold: ...

    async def rung(self, payer: Payer) -> Degrade | None:
        """The step of the degrade ladder that applies to the payer now."""
        ...

    def last_rung(self, payer: Payer) -> Degrade | None:
        """The step for a call that the budget cannot cover."""
        ...

    def allowed(self, payer: Payer) -> frozenset[str] | None:
        """The models that the payer may use; None for all."""
        ...

    def barred(self, payer: Payer, models: Sequence[str]) -> Forbidden | None:
        """Why none of `models` serves the payer where that is an operator's switch; None where it is not."""
        ...

    async def admit(self, payer: Payer) -> Ticket:
        """Let a request in; it holds a place until its ticket is released. Raises QuotaExhausted, Forbidden."""
        ...


class OpenDesk:
    """A desk that asks nobody for anything: for notebooks and tests of graphs, where nothing is billed."""

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> Hold:
        return FreeHold()

    async def rung(self, payer: Payer) -> Degrade | None:
        return None

    def last_rung(self, payer: Payer) -> Degrade | None:
        return None

    def allowed(self, payer: Payer) -> frozenset[str] | None:
        return None

    def barred(self, payer: Payer, models: Sequence[str]) -> Forbidden | None:
        return None

    async def admit(self, payer: Payer) -> Ticket:
        return FreeTicket()


class FreeTicket:
    """A place where places are not counted."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {}

    def release(self) -> None:
        return None


class FreeHold:
    """Nothing is reserved, nothing is booked."""

    @property
    def granted_micros(self) -> int | None:
        return None

    async def recorded(self) -> None:
        return None

    async def settle(self, bill: Bill) -> None:
        return None
