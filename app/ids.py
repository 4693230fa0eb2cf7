"""Names for rows and requests: 128 random bits in 32 hexadecimal digits, as many as a UUID has.

Drawn from the system in handfuls: each draw lets other threads go first, and a busy one comes back late.
"""

import os
from typing import Final

_DIGITS: Final = 32
_HANDFUL: Final = 256

_drawn: list[str] = []
os.register_at_fork(after_in_child=_drawn.clear)  # else parent and child would hand out the same


def new_id() -> str:
    """An id that nobody else has. For secrets take `secrets`: these lie in memory before they are used."""
    try:
        return _drawn.pop()
    except IndexError:
        digits = os.urandom(_HANDFUL * _DIGITS // 2).hex()
        _drawn.extend(digits[at : at + _DIGITS] for at in range(_DIGITS, len(digits), _DIGITS))
        return digits[:_DIGITS]
