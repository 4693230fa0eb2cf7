"""Times the stages of an ingest one after the other, and tells each document's share of them."""

import time
from collections.abc import Mapping

from app.services.ingest.ports import Progress, Report, Stage


def silent(progress: Progress) -> None:
    """Nobody watches."""


class Watch:
    """Runs from when it is made; each `passed` ends a stage and begins the next."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._since = time.perf_counter()

    def passed(self, stage: Stage, chunks: Mapping[str, int]) -> None:
        """All of these documents, by id with their number of chunks, have passed it together."""
        now = time.perf_counter()
        took_s, self._since = now - self._since, now
        whole = sum(chunks.values())
        for document_id, count in chunks.items():
            share = count / whole if whole else 1 / len(chunks)
            self._report(Progress(document_id, stage, took_s * share, count))
