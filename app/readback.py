"""A run's events and card as its owner reads them: with what was withheld from the model back in its place.

Only while the run is in flight and in the process that drives it, for the originals live with it: stored events, and
what colleagues with the scope `runs` read, keep the placeholders.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from app.placeholders import Restoring
from app.records import AnswerCard, RunEvent
from graphs.context import Withheld


async def read_back(
    events: AsyncGenerator[RunEvent, None], withheld: Withheld, after: int
) -> AsyncGenerator[RunEvent, None]:
    """Those numbered above `after` of all the `events`, which have to begin with the first: a placeholder may be cut
    where the reader left. A piece that is held back comes with the next one."""
    restoring, last = Restoring(withheld), 0
    async with aclosing(events):
        async for item in events:
            if item.type == "message.delta":
                text, last = restoring.feed(item.data["text"]), item.number
                if text and item.number > after:
                    yield replace(item, data={**item.data, "text": text})
                continue
            if (rest := restoring.close()) and last > after:
                yield RunEvent(last, "message.delta", {"text": rest})
            if item.number > after:
                yield replace(item, data=withheld.restored(item.data))


def card_back(card: AnswerCard, withheld: Withheld) -> AnswerCard:
    return AnswerCard.model_validate(withheld.restored(card.model_dump())) if withheld.originals else card
