"""Measures the input guard: what its patterns find, how fast, and what its detectors cost.

    python benchmarks/guards.py --data DIR

Personal data: presidio-research's synthetic sentences (MIT), split by template; the half that the patterns were written
on is left out. Names, addresses, dates, domains and driving licences are not looked for. Intervals of topics and languages
are 95 % bootstraps over articles and texts. Detection of injections is measured by benchmarks/train_injection.py. Read ratios
rather than times: each is of one run, its sides taken in turns.
"""

import argparse
import asyncio
import math
import random
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.services.guardrails.find import find
from app.services.guardrails.injection import InjectionModel, windows
from app.services.guardrails.language import foreign
from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.pii import PERSONAL
from app.services.guardrails.signs import signs
from app.services.retrieval.embedder import MiniLmEmbedder
from benchmarks.training import SEED, interval, show
from benchmarks.training import rows as lines

KINDS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "US_SSN": "us_ssn", "IP_ADDRESS": "ip_address",
    "CREDIT_CARD": "card_number", "IBAN_CODE": "iban",
}  # fmt: skip
PATTERNS = (*SECRETS, *PERSONAL)
PLAIN = re.compile(r"[A-Za-z0-9_.+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]+")  # a mail address, as one would write it at first
ROUNDS = 5
TEXT_BYTES = 1 << 20


def personal(data: Path) -> None:
    """A find counts if it overlaps a span of its kind. The intervals are over spans, and few templates made them."""
    sentences = lines(data / "pii/generated_large.jsonl")
    templates = sorted({row["template_id"] for row in sentences})
    random.Random(SEED).shuffle(templates)
    held_out = set(templates[len(templates) // 2 :])
    marks: dict[str, list[tuple[str, int, int, int]]] = {kind: [] for kind in KINDS.values()}  # template, tp, fp, fn
    for row in sentences:
        if row["template_id"] not in held_out:
            continue
        spans = [(KINDS[span["type"]], span["start"], span["end"]) for span in row["spans"] if span["type"] in KINDS]
        finds = [(each.kind, each.start, each.end) for each in find(PATTERNS, row["text"])]
        for kind in marks:
            true = [span for span in spans if span[0] == kind]
            found = [span for span in finds if span[0] == kind]
            hit = sum(any(_overlap(span, other) for other in found) for span in true)
            wrong = sum(not any(_overlap(span, other) for other in true) for span in found)
            if true or found:
                marks[kind].append((str(row["template_id"]), hit, wrong, len(true) - hit))
    print(f"personal data, {len(held_out)} held-out templates of {len(templates)}")
    for kind, seen in marks.items():
        counts = np.array([mark[1:] for mark in seen]).reshape(-1, 3)
        groups = [mark[0] for mark in seen]
        n = int(counts[:, 0].sum() + counts[:, 2].sum())
        print(
            f"  {kind}: n={n} in {len(set(groups))} templates, found {counts[:, 0].sum()}, wrongly {counts[:, 1].sum()}"
        )
        if n:
            hit, wrong, missed = counts.sum(axis=0)
            _show("precision", hit, hit + wrong)
            _show("recall", hit, hit + missed)
            print(f"    F1        {2 * hit / (2 * hit + wrong + missed):.3f}")


def _show(name: str, hits: int, n: int) -> None:
    """A share with its 95 % interval by Wilson, which a share of all does not shrink to a point."""
    z, share = 1.96, hits / n
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    print(f"    {name:9} {share:.3f}  [{low:.3f}, {high:.3f}]  n={n}")


def _overlap(one: tuple[str, int, int], other: tuple[str, int, int]) -> bool:
    return one[1] < other[2] and other[1] < one[2]


def speed(data: Path) -> None:
    """CPU of one thread over the same text for each look, in turns."""
    pages = [row["text"] for row in lines(data / "retrieval/ops/corpus.jsonl")]
    people = [row["text"] for row in lines(data / "pii/generated_large.jsonl")]
    texts = {"operations pages": "\n".join(pages)[:TEXT_BYTES], "sentences with personal data": "\n".join(people)}
    looks: dict[str, Callable[[str], object]] = {
        "one plain pattern": PLAIN.findall,
        "secrets": lambda text: find(SECRETS, text),
        "personal data": lambda text: find(PERSONAL, text),
        "both": lambda text: find(PATTERNS, text),
        "signs of injection": signs,
    }
    for title, text in texts.items():
        taken: dict[str, list[float]] = {name: [] for name in looks}
        for _ in range(ROUNDS):
            for name, look in looks.items():
                taken[name].append(_cpu_s(look, text))
        middle = {name: statistics.median(seconds) for name, seconds in taken.items()}
        size = len(text.encode()) / 1e6
        print(f"\nspeed over {size:.2f} MB of {title}, median of {ROUNDS}")
        for name, seconds in middle.items():
            print(f"  {name:20} {size / seconds:6.1f} MB/s, {seconds / middle['one plain pattern']:5.1f} times plain")


def _cpu_s(look: Callable[[str], object], text: str) -> float:
    started = time.process_time()
    look(text)
    return time.process_time() - started


async def detector(data: Path, embedder: MiniLmEmbedder) -> None:
    """Milliseconds, of the wall and of CPU, for a text: the embedding alone, and the whole detector."""
    model = InjectionModel(embedder)
    questions = [row["question"] for row in lines(data / "qa/xquad_en.jsonl")][:200]
    pages = [row["text"][:8_000] for row in lines(data / "retrieval/ops/corpus.jsonl") if len(row["text"]) > 8_000][:6]
    passages = [row["text"] for row in lines(data / "retrieval/xquad_en/corpus.jsonl")]
    six = ["\n\n".join(passages[at : at + 6]) for at in range(0, 60, 6)]
    for title, texts in {"a question": questions, "six passages": six, "8,000 characters": pages}.items():
        alone, whole, scanned = [], [], []
        for place, text in enumerate(texts):
            # A space more, because the embedder remembers single texts.
            if place % 2:
                whole.append(await _cost_ms(lambda text=text: model.score(text)))
                alone.append(await _cost_ms(lambda text=text: embedder.embed(windows(text + " "))))
            else:
                alone.append(await _cost_ms(lambda text=text: embedder.embed(windows(text + " "))))
                whole.append(await _cost_ms(lambda text=text: model.score(text)))
            scanned.append(_cpu_s(signs, text) * 1e3)
        rows = {"embedding alone": alone, "the detector": whole}
        print(f"\n{title}, n={len(texts)}: signs alone {statistics.median(scanned):.3f} ms of CPU")
        for name, costs in rows.items():
            wall, cpu = (statistics.median(cost[place] for cost in costs) for place in (0, 1))
            print(f"  {name:20} {wall:7.1f} ms, {cpu:7.1f} ms of CPU")


async def _cost_ms(look: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    await look()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


async def topics(data: Path, embedder: MiniLmEmbedder) -> None:
    """Articles as topics: five questions are the examples, others of the same and of other articles are asked."""
    titles = {row["_id"]: row["title"] for row in lines(data / "retrieval/xquad_en/corpus.jsonl")}
    asked: dict[str, list[str]] = {}
    for row in lines(data / "qa/xquad_en.jsonl"):
        asked.setdefault(titles[row["passage_id"]], []).append(row["question"])
    names = sorted(name for name, questions in asked.items() if len(questions) >= 15)
    rng = random.Random(SEED)
    rng.shuffle(names)
    chosen = {name: rng.sample(asked[name], 15) for name in names}
    vectors = {name: await embedder.embed(questions) for name, questions in chosen.items()}
    near: dict[str, tuple[list[float], list[float]]] = {}
    for name in names:
        examples = vectors[name][:5]
        own = (vectors[name][5:] @ examples.T).max(axis=1)
        others = np.concatenate([(vectors[other][5:] @ examples.T).max(axis=1) for other in names if other != name])
        near[name] = (own.tolist(), others.tolist())
    half = len(names) // 2
    threshold = float(np.quantile(np.concatenate([near[name][1] for name in names[:half]]), 0.99))
    print(f"\ntopics: threshold {threshold:.2f} lets in 1 % of others' questions, chosen on {half} articles")
    groups = [name for name in names[half:] for _ in near[name][0]]
    own = np.array([score >= threshold for name in names[half:] for score in near[name][0]])
    show(
        "  own questions recognised",
        interval(lambda rows: float(own[rows].mean()), np.arange(len(own)), groups),
        len(own),
    )
    groups = [name for name in names[half:] for _ in near[name][1]]
    others = np.array([score >= threshold for name in names[half:] for score in near[name][1]])
    measured = interval(lambda rows: float(others[rows].mean()), np.arange(len(others)), groups)
    show("  others' questions let in", measured, len(others))


def languages(data: Path) -> None:
    """How often a language is refused where another one is allowed, and wrongly where it is allowed itself."""
    texts = {"en": [row["question"] for row in lines(data / "qa/xquad_en.jsonl")][:600]}
    texts["en, handbook"] = [row["question"] for row in lines(Path("evals/datasets/handbook.jsonl"))]
    texts["zh"] = [row["question"] for row in lines(data / "qa/xquad_zh.jsonl")][:600]
    for row in lines(data / "injection/bastion/injections.jsonl"):
        if row["lang"] != "en":
            texts.setdefault(row["lang"], []).append(row["text"])
    print("\nlanguages: share refused")
    for name, asked in texts.items():
        for allowed in (["en"], [name[:2]]) if name[:2] != "en" else (["en"], ["de"]):
            refused = np.array([bool(foreign(text, allowed)) for text in asked])
            measured = interval(lambda rows, refused=refused: float(refused[rows].mean()), np.arange(len(asked)),
                                [str(place) for place in range(len(asked))])  # fmt: skip
            show(f"  {name} where {allowed[0]} is allowed", measured, len(asked))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data: Path = parser.parse_args().data
    personal(data)
    speed(data)
    languages(data)
    embedder = MiniLmEmbedder()
    asyncio.run(detector(data, embedder))
    asyncio.run(topics(data, embedder))


if __name__ == "__main__":
    main()
