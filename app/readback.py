"""A run's events and card as its owner reads them: with what was withheld from the model back in its place.

Only while the run is in flight and in the process that drives it, for the originals live with it: stored events, and
what colleagues with the scope `runs` read, keep the placeholders.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from app.placeholders import Restoring
from app.records import AnswerCard, RunEvent
from graphs.context import Withheld


async def read_back(
    events: AsyncGenerator[RunEvent, None], withheld: Withheld, after: int
) -> AsyncGenerator[RunEvent, None]:
    """Those numbered above `after` of all the `events`, which have to begin with the first: a placeholder may be cut
    where the reader left. A piece that is held back comes with the next one."""
    restoring, last, said = Restoring(withheld), 0, ""
    async with aclosing(events):
        async for item in events:
            if item.type == "message.delta":
                said += item.data["text"]
                text, last = restoring.feed(item.data["text"]), item.number
                if text and item.number > after:
                    yield replace(item, data={**item.data, "text": text})
                continue
            if item.type.startswith("tool."):
                said = ""  # what an agent says before its last call is no part of the answer
            if (rest := restoring.close()) and last > after:
                yield RunEvent(last, "message.delta", {"text": rest})
            if item.number > after:
                yield replace(item, data=_restored(item.data, said, withheld))


def card_back(card: AnswerCard, withheld: Withheld) -> AnswerCard:
    """The card with the originals in all its texts."""
    if not withheld.originals:
        return card
    return AnswerCard.model_validate(_restored(card.model_dump(), card.answer, withheld))


def _restored(data: Mapping[str, Any], answer: str, withheld: Withheld) -> dict[str, Any]:
    """The data with the originals, and with the places of its sentences in the answer that has them."""
    given: dict[str, Any] = withheld.restored(data)
    if isinstance(card := data.get("card"), Mapping):
        given["card"] = _restored(card, card["answer"], withheld)
    if sentences := data.get("sentences"):
        given["sentences"] = [
            {
                **withheld.restored(sentence),
                **{at: len(withheld.restored(answer[: sentence[at]])) for at in ("start", "end")},
            }
            for sentence in sentences
        ]
    return given
