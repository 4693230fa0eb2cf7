"""Commits that others came before, in the words that LanceDB has for it."""

import pytest

from app.services.retrieval.commit import COMMIT_TRIES, IndexFailed, committed

# As three writers of one table in a slow bucket got them, two of which also tidied it.
PREEMPTED = (
    "lance error: Retryable commit conflict for version 16: This Rewrite transaction was preempted by concurrent "
    "transaction Update at version 16. Please retry."
)
STARVED = (
    "lance error: Too many concurrent writers. Attempted 2 times, but failed on retry_timeout of 30.000 seconds., "
    "src/dataset/write/retry.rs"
)


class Writer:
    """Fails so many times in these words, then writes."""

    def __init__(self, words: str, times: int) -> None:
        self.words, self.times, self.tried = words, times, 0

    async def __call__(self) -> str:
        self.tried += 1
        if self.tried <= self.times:
            raise RuntimeError(self.words)
        return "written"


@pytest.mark.parametrize("words", [PREEMPTED, STARVED])
async def test_d04_a_write_that_others_came_before_is_tried_again(words: str) -> None:
    assert await committed(Writer(words, 2)) == "written"


async def test_a_write_that_fails_of_itself_is_not_tried_again() -> None:
    writer = Writer("lance error: LanceError(IO): disk full", 1)
    with pytest.raises(IndexFailed):
        await committed(writer)
    assert writer.tried == 1


async def test_a_write_that_never_comes_first_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.retrieval.commit.random.uniform", lambda low, high: 0.0)
    writer = Writer(STARVED, 1_000)
    with pytest.raises(IndexFailed):
        await committed(writer)
    assert writer.tried == COMMIT_TRIES
