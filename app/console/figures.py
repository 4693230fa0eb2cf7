"""Amounts as people read them: money, counts, shares. The exact number is always near, in a title or a table."""

from typing import Final

_SCALES: Final = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def money(micros: float, places: int | None = None) -> str:
    """Dollars with two places from one dollar on and four below, or with so many; too little for them says so."""
    if places is None:
        places = 2 if abs(micros) >= 1_000_000 else 4
    if micros and abs(micros) < 10 ** (6 - places):
        return f"<${10**-places:.{places}f}" if micros > 0 else f">-${10**-places:.{places}f}"
    sign = "-" if micros < 0 else ""
    return f"{sign}${abs(micros) / 1e6:,.{places}f}" if micros else "$0"


def money_mark(micros: float) -> str:
    """For an axis: no more places than the mark has."""
    whole, _, rest = f"{micros / 1e6:,.6f}".partition(".")
    rest = rest.rstrip("0")
    return f"${whole}.{rest.ljust(2, '0')}" if rest else f"${whole}"


def compact(number: float) -> str:
    """Three figures and a scale: 1.24M."""
    for scale, sign in _SCALES:
        if abs(number) >= scale * 0.9995:
            value = number / scale
            digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
            return f"{value:.{digits}f}".removesuffix(".00").removesuffix(".0") + sign
    return f"{number:,.0f}"


def size(size_bytes: int) -> str:
    """A file's size as file managers show it: 14.2 kB."""
    number = compact(size_bytes).replace("B", "G")
    return f"{number} B" if size_bytes < 1_000 else f"{number[:-1]} {number[-1]}B"


def portion(share: float) -> str:
    """A share in percent; one that is there never reads as none, one that is not whole never as all."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "<0.1 %"
    if 99.9 < percent < 100:
        return ">99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 call`, `2 calls`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
