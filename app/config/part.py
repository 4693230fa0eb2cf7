"""What every part of the configuration file is made of: the frozen base, and the kinds of values that fields share."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Annotated, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$")]
Environment = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Host = Annotated[str, StringConstraints(pattern=r"^[^\s/@:%\\\[\]]{1,253}$")]
Prefix = Annotated[str, StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^/\s]+/)*$")]
Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000_000)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_is_a_number(cls, value: object, field: ValidationInfo) -> object:
        # YAML reads yes and on as true, and Pydantic true as 1: one request a minute.
        if isinstance(value, bool) and field.field_name is not None:
            kinds = _kinds(cls.model_fields[field.field_name].annotation)
            if bool not in kinds and not kinds.isdisjoint({int, float, Decimal}):
                raise ValueError("must be a number, not true or false")
        return value


P = TypeVar("P", bound=Part)


def laid_over(common: P, own: Part | None) -> P:
    """`common` with what is written down in `own`, in its parts too."""
    if own is None:
        return common
    written = {name: getattr(own, name) for name in own.model_fields_set}
    parts = {name: laid_over(getattr(common, name), part) for name, part in written.items() if isinstance(part, Part)}
    return common.model_copy(update=written | parts)


def tenant_lines(
    line: Callable[[P], str], everybody: P, of: Callable[[str], P], tenants: Iterable[str]
) -> list[tuple[str, str]]:
    """What `pilothouse config check` says of a part that tenants may have of their own: who, and what holds."""
    return [("everybody", line(everybody)), *((f"tenant {name}", line(of(name))) for name in tenants)]


def _kinds(annotation: object) -> set[object]:
    """The types that an annotation is made of."""
    inner = get_args(annotation)
    return set().union(*map(_kinds, inner)) if inner else {annotation}
