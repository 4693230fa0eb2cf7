"""What the output guard costs a stream: how many tokens it holds back, when the first text leaves, and each delta's work.

    python benchmarks/guards_stream.py [--rounds 15]

The texts are the handbook's paragraphs, prose with code, tables and addresses, cut into pieces of up to six letters as
models send them. Waiting is counted in tokens, which no load of the machine changes: a text that leaves with its third
token waits twice as long as between two. Work is CPU time of the event's way out, guarded and not, in turns; the table
has the median of the rounds' ratios and their quartiles. Held: a policy under which an answer leaves when it is whole.
"""

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import orjson

from app.answers import Answers
from app.api.v1.guarded import Guarded
from app.api.v1.shapes import chunk_json
from app.config.answers import AnswersConfig
from app.services.gateway.provider import WireEvent
from app.services.guardrails.instructions import mark_of
from app.services.guardrails.output import OutputGuard
from app.workbench import PAGES
from graphs.prompts import PromptBook

TOKEN = re.compile(r"\s?\w{1,6}|\s|[^\w\s]")
MIN_TOKENS = 30
POLICIES = {
    "as it comes": AnswersConfig(),
    "links to listed hosts": AnswersConfig(links="listed", link_hosts=("docs.example",)),
    "no personal data": AnswersConfig(personal="redact"),
}


def texts() -> list[list[str]]:
    """Paragraphs as tokens."""
    paragraphs = [part for page in sorted(PAGES.glob("*.md")) for part in page.read_text().split("\n\n")]
    found = [TOKEN.findall(part) for part in paragraphs]
    return [tokens for tokens in found if len(tokens) >= MIN_TOKENS]


def held(guard: OutputGuard, tokens: Sequence[str]) -> tuple[int, list[int]]:
    """With which token, from 1, the first text leaves, and how many tokens are held back after each."""
    applied, given, out, first = guard.stream_filter(), 0, 0, 0
    ends: list[int] = []
    waiting = []
    for number, token in enumerate(tokens, 1):
        given += len(token)
        ends.append(given)
        out += len(applied.feed(token))
        first = first or (number if out else 0)
        waiting.append(sum(end > out for end in reversed(ends)) if out < given else 0)
    return first or len(tokens), waiting


def seconds(way: Callable[[str], bytes], corpus: Sequence[Sequence[str]]) -> float:
    started = time.process_time()
    for tokens in corpus:
        for token in tokens:
            way(token)
    return time.process_time() - started


def event(token: str) -> WireEvent:
    return WireEvent(b"", chunk_json("chatcmpl-x", 0, "big", {"content": token}), token, True)


def plain(token: str) -> bytes:
    return orjson.dumps(event(token).data)


def guarded_way(guard: OutputGuard) -> Callable[[str], bytes]:
    guarded = Guarded(guard.stream_filter)

    def way(token: str) -> bytes:
        made = event(token)
        guarded.clean(made)
        return orjson.dumps(made.data)

    return way


def quartiles(values: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    corpus = texts()
    deltas = sum(map(len, corpus))
    print(f"{len(corpus)} texts, {deltas} deltas, {rounds} rounds\n")
    for name, config in POLICIES.items():
        mark = mark_of("benchmark")
        guard = Answers(config, prompts=PromptBook.packaged(), mark=mark).guard("acme")
        found = [held(guard, tokens) for tokens in corpus]
        firsts = [float(first) for first, _ in found]
        waiting = sorted(count for _, counts in found for count in counts)
        at_once = sum(count == 0 for count in waiting) / len(waiting)
        ratios, each_us = [], []
        for _ in range(rounds):
            without, within = seconds(plain, corpus), seconds(guarded_way(guard), corpus)
            ratios.append(within / without)
            each_us.append((within - without) / deltas * 1e6)
        print(f"{name}\n  deltas that leave whole and at once  {at_once:.3f}")
        print(
            f"  tokens held back: mean {statistics.fmean(waiting):.2f}, p99 {waiting[int(len(waiting) * 0.99)]},",
            end=" ",
        )
        print(f"most {waiting[-1]}")
        print(f"  time to the first text, in tokens    mean {statistics.fmean(firsts):.2f}, most {max(firsts):.0f}")
        print(f"  a delta's work, to that without      {quartiles(ratios)}; {quartiles(each_us)} us more\n")
    lengths = [float(len(tokens)) for tokens in corpus]
    print(f"held until it is checked\n  time to the first text, in tokens    {quartiles(lengths)}: all there are")


if __name__ == "__main__":
    main()
