"""How `pytest -n 3 --dist loadfile` shares the tests out: the longest first, and who shares a server stays together.

xdist alone gives the files with the most tests first: those that start whole installations, a few tests each, come
last, and one worker waits for the other; and each worker starts a server of its own for every package, again and again.
"""

import re

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

ADDRESS = re.compile(r" at 0x[0-9a-f]{8,}")
# Whole packages, each with one server for all of its files.
TOGETHER = ("tests/console", "tests/api", "tests/api/v1")
# By the time that they take; all else is short.
FIRST = (*TOGETHER, "tests/flow", "tests/telemetry", "tests/app", "tests/services/retrieval", "tests/services/store")


class Apportioned(LoadFileScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        folder = folder_of(nodeid)
        return folder if folder in TOGETHER else super()._split_scope(nodeid)


def folder_of(nodeid: str) -> str:
    return nodeid.partition("::")[0].rpartition("/")[0]


def rank(item: pytest.Item) -> int:
    folder = folder_of(item.nodeid)
    return FIRST.index(folder) if folder in FIRST else len(FIRST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if named := [item.nodeid for item in items if ADDRESS.search(item.nodeid)]:
        raise pytest.UsageError(f"{named[0]}: an address in a name is another one at each worker; give ids")
    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return Apportioned(config, log)
