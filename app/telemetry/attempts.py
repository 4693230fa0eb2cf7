"""What telemetry reads of an attempt at a model call; the gateway's own `Attempt` is one."""

from typing import Protocol

from app.records import Bill


class Model(Protocol):
    @property
    def name(self) -> str: ...


class Attempted(Protocol):
    """An attempt that has ended. `number` counts from 1 within its call."""

    @property
    def target(self) -> Model: ...

    @property
    def number(self) -> int: ...

    @property
    def bill(self) -> Bill: ...
