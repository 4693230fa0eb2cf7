"""Counts in how many passages a stem stands and writes app/rarity.json: what a shared word is worth as evidence.

    python benchmarks/train_rarity.py --data DIR

Counts passages of the 402 operations pages (Apache-2.0 and MIT, see the data's README) and of XQuAD's training
articles (CC BY-SA 4.0). Only stems found in four or more passages are kept; the rest share one value.
"""

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.reading import RARITY_FILE
from benchmarks.training import articles, rows
from graphs.words import stems

LEAST_PASSAGES = 4
PASSAGE_CHARS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    texts = [passage for each in articles(data) if each.part == "train" for passage in each.passages.values()]
    for page in rows(data / "retrieval/ops/corpus.jsonl"):
        texts += [page["text"][at : at + PASSAGE_CHARS] for at in range(0, len(page["text"]), PASSAGE_CHARS)]
    counts = Counter(stem for text in texts for stem in set(stems(text)))
    known = {
        stem: round(math.log(len(texts) / count), 1)
        for stem, count in sorted(counts.items())
        if count >= LEAST_PASSAGES and not stem.isdigit()
    }
    unknown = round(math.log(len(texts) / 2), 1)
    RARITY_FILE.write_text(json.dumps({"unknown": unknown, "known": known}, separators=(",", ":")) + "\n", "utf-8")
    print(f"{len(texts)} passages, {len(known)} stems, {RARITY_FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
