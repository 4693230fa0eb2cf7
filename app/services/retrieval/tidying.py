"""When a write is followed by indexing: at once while that is cheap, later where it would take most of the time.

LanceDB indexes new rows and joins small files in one go, which rewrites the table: 200 rows more took 1 s at 10,000 and
7 s at 160,000. A text search reads what is not yet indexed row by row: a few rows beside many are not noticed, 5,000
make it twenty times slower, and rows beside none are ranked without knowing how common a word is. The round of
`Maintenance` takes whatever was left.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

FEW: Final = 500  # rows outside of the index, and SHARE of those inside: a search does not notice them
SHARE: Final = 0.05
REST: Final = 10.0  # times as long as it took, until a write may do it again
QUICK_S: Final = 0.1  # needs no rest
_HELD: Final = 1_024  # tables


class Tidying:
    """Of one process; what others do to the same table they ration by themselves."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._rests_until: OrderedDict[str, float] = OrderedDict()

    def is_due(self, table: str, indexed: int, unindexed: int) -> bool:
        """Rows in the table's text index, and beside it."""
        if unindexed <= min(FEW, indexed * SHARE):
            return False
        return self._monotonic() >= self._rests_until.get(table, float("-inf"))

    @contextmanager
    def taking(self, table: str) -> Iterator[None]:
        """While it is done, whether it succeeds or not."""
        began = self._monotonic()
        try:
            yield
        finally:
            took = (ended := self._monotonic()) - began
            self._rests_until[table] = ended + REST * took * (took > QUICK_S)
            self._rests_until.move_to_end(table)
            if len(self._rests_until) > _HELD:
                self._rests_until.popitem(last=False)
