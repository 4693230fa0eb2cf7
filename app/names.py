"""Names of collections, as every service that takes one from outside checks them."""

import re
from typing import Final

from graphs.errors import Invalid

# The product's own pages: one collection, of a tenant that no credential can name, read by all.
HANDBOOK: Final = "handbook"
SHARED_TENANT: Final = "_shared"

_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def checked_collection(name: str) -> str:
    """The name as it is. Raises Invalid."""
    if not _COLLECTION.fullmatch(name):
        raise Invalid(
            "a collection's name is 1 to 64 of A-Z a-z 0-9 _ . - and begins with a letter or digit", field="collection"
        )
    return name
