"""A follow-up through a whole run: searched as a question of its own, answered as it was asked, told on the card."""

from pathlib import Path

from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.types import Passage
from tests.app.lite import ANN, lite

BACKUP = "How do I back up the SQLite store?"
PAGE = Passage("c1", "backup", "Backup", "Run pg_dump every night.", 0, 24, 0.9, "docs")


async def test_a_follow_up_is_searched_whole_and_stands_in_the_prompt_as_the_user_wrote_it(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with lite(tmp_path, lambda _: "Run pg_dump every night.", embedder=embedder, passages=(PAGE,)) as bench:
        first = await bench.runner.card(ANN, (await bench.ask(BACKUP, mode="rag")).run_id)
        told = await bench.ask("And on PostgreSQL?", mode="rag", conversation_id=first.conversation_id)
        card = await bench.runner.card(ANN, told.run_id)
        prompt = bench.gateway.requests[-1].messages[-1].content
    assert first.search is not None
    assert (first.search.query, first.search.rewritten_by) == (BACKUP, "")
    assert card.search is not None
    assert (card.search.query, card.search.rewritten_by) == (f"{BACKUP} And on PostgreSQL?", "words")
    assert prompt.endswith("And on PostgreSQL?")
    assert BACKUP not in prompt
