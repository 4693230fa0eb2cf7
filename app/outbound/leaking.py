"""Whether a URL that a model made looks as if it carried something away: a secret in its path, query or host.

A heuristic for what no list of hosts covers. It misses what is short, cut into pieces or spelled out in words, and it
takes some long ids of honest pages for secrets; where those matter, the operator lists hosts instead.
"""

import math
import re
from collections import Counter
from itertools import pairwise
from typing import Final

from yarl import URL

MAX_CHARS: Final = 512
MAX_QUERY_CHARS: Final = 256
MAX_LABELS: Final = 6
MIN_BITS: Final = 3.0  # a character; 20 random hexadecimal digits come to 3.2, as English words do
MIN_CHANGES: Final = 0.2  # a character, between digits, capitals and small letters; titles with a date stay below 0.1
_RUN: Final = re.compile(r"[A-Za-z0-9+=_~-]{20,}")


def leaks(url: URL) -> bool:
    """Whether it is too long, or holds a long run of characters as random as a key's."""
    host = url.raw_host or ""
    labels = host.split(".")
    if len(str(url)) > MAX_CHARS or len(url.raw_query_string) > MAX_QUERY_CHARS or len(labels) > MAX_LABELS:
        return True
    parts = [*labels, url.path, *(part for pair in url.query.items() for part in pair)]
    return any(_is_random(run) for part in parts for run in _RUN.findall(part))


def _is_random(run: str) -> bool:
    bits = -sum(count / len(run) * math.log2(count / len(run)) for count in Counter(run).values())
    changes = sum(before != after for before, after in pairwise(map(_alphabet, run)))
    return bits >= MIN_BITS and changes >= MIN_CHANGES * len(run)


def _alphabet(character: str) -> str:
    return "0" if character.isdigit() else "A" if character.isupper() else "a"
