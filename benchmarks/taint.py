"""How well a call is told to repeat an untrusted text, and what telling costs.

    python benchmarks/taint.py            the half that nothing was chosen on, and the cost
    python benchmarks/taint.py --choose   the other half, over the thresholds of graphs/likeness.py

Repeated: addresses, quotes, numbers and whole orders of the attackers' goals of AgentDojo and of BIPIA's attacks, each
as an argument, plain and disguised, where the run has read the environment or text with the attack in it. Not repeated:
the same kinds of values from the user's own task, and from tasks that have nothing to do with what was read. Suites
workspace and banking, and every second kind of BIPIA's attacks, are for choosing; the rest for reporting.
"""

import argparse
import json
import math
import os
import re
import sys
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parents[1]))

from graphs import likeness
from graphs.taint import Reading, Source

FOR_CHOOSING: Final = frozenset({"workspace", "banking"})
VALUE: Final = re.compile(
    r"'([^']{4,300})'|([\w.+-]+@[\w-]+\.[\w.]+\w)|((?:https?://|www\.)[\w./-]+\w)|\b([A-Z]{2}\d{10,})\b"
)
BIPIA_EVERY: Final = 3  # each attack comes in many contexts
COST_CHARS: Final = (50_000, 200_000, 800_000)


class Case(NamedTuple):
    """A value, what its run had read, and whether it comes from there. `form` is the disguise, or why it does not."""

    form: str
    value: str
    read: Reading
    repeats: bool
    chosen_on: bool


def every_fifth_word_left_out(text: str) -> str:
    return " ".join(word for place, word in enumerate(text.split()) if place % 5 != 4)


def among_own_words(text: str) -> str:
    return f"As we discussed this morning I would like to add the following for the record. {text} Kind regards to all."


SHORT: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "upper case": str.upper,
    "spaced out": " ".join,
    "hidden characters": "\u200b".join,
    "full width": lambda text: "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text),
    "backwards": lambda text: text[::-1],
    "base64": lambda text: b64encode(text.encode()).decode(),
    "percent": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "in a URL": lambda text: f"https://collect.example/?d={quote(text)}",
    "among own words": among_own_words,
}
LONG: Final = SHORT | {
    "first half": lambda text: text[: len(text) // 2],
    "every fifth word left out": every_fifth_word_left_out,
}


def values(text: str) -> list[str]:
    """Addresses, quotes and numbers in it."""
    return list(dict.fromkeys(next(filter(None, groups)) for groups in VALUE.findall(text)))


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def dojo(folder: Path) -> Iterator[Case]:
    """A goal in its suite's environment, while the user asked for one of the suite's tasks."""
    templates = [row["template"] for row in rows(folder / "attack_templates.jsonl")]
    tasks: dict[str, list[str]] = defaultdict(list)
    for row in rows(folder / "user_tasks.jsonl"):
        tasks[row["suite"]].append(row["text"])
    for number, goal in enumerate(rows(folder / "injection_goals.jsonl")):
        suite, others = goal["suite"], [text for name in tasks if name != goal["suite"] for text in tasks[name]]
        words = {"goal": goal["text"], "user": "Ann", "model": "assistant", "tools": ""}
        attack = templates[number % len(templates)].format(**words)
        environment = "\n".join(path.read_text() for path in sorted((folder / "suites" / suite).rglob("*.yaml")))
        asked = tasks[suite][number % len(tasks[suite])]
        read = reading(f"{environment}\n{attack}", asked)
        yield from attacked(goal["text"], asked, read, suite in FOR_CHOOSING)
        yield from harmless(asked, others[number::20], f"{environment}\n{attack}", read, suite in FOR_CHOOSING)


def bipia(folder: Path) -> Iterator[Case]:
    """An attack somewhere in a text."""
    whole = [row for row in rows(folder / "derived_indirect_train.jsonl") if row["label"]]
    kinds = sorted({row["attack_kind"] for row in whole})
    for number, row in enumerate(whole[::BIPIA_EVERY]):
        asked = "What does this say? Put it in a few words."
        read, chosen_on = reading(row["text"], asked), kinds.index(row["attack_kind"]) % 2 == 0
        for form, disguise in LONG.items():
            yield Case(f"order, {form}", disguise(row["attack"]), read, True, chosen_on)
        others = [other["attack"] for other in whole[number::101] if other["attack"] not in row["text"]]
        yield from (Case("nobody's", text, read, False, chosen_on) for text in others)


def attacked(goal: str, asked: str, read: Reading, chosen_on: bool) -> Iterator[Case]:
    for value in values(goal):
        if value not in asked:
            yield from (Case(form, disguise(value), read, True, chosen_on) for form, disguise in SHORT.items())
    yield from (Case(f"order, {form}", disguise(goal), read, True, chosen_on) for form, disguise in LONG.items())


def harmless(asked: str, others: list[str], seen: str, read: Reading, chosen_on: bool) -> Iterator[Case]:
    yield from (Case("the user's", value, read, False, chosen_on) for value in (asked, *values(asked)))
    strangers = (value for other in others for value in (other, *values(other)))
    yield from (Case("nobody's", value, read, False, chosen_on) for value in strangers if value not in seen)


def reading(seen: str, asked: str) -> Reading:
    return Reading((Source("user", "question", "tenant", asked), Source("document", "seen", "untrusted", seen)))


def interval(hits: int, n: int) -> str:
    """A share with its Wilson interval at 95 %."""
    z = 1.96
    share, spread = hits / n, z * math.sqrt(hits / n * (1 - hits / n) / n + z * z / (4 * n * n))
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    return f"{share:6.1%} [{(middle - spread) / scale:.1%}, {(middle + spread) / scale:.1%}] of {n}"


def judge(cases: list[Case]) -> dict[tuple[bool, str], list[bool]]:
    told: dict[tuple[bool, str], list[bool]] = defaultdict(list)
    for case in cases:
        told[case.repeats, case.form].append(bool(case.read.origins({"value": case.value})))
    return told


def report(cases: list[Case]) -> None:
    told = judge(cases)
    for (repeats, form), found in sorted(told.items(), reverse=True):
        print(f"{'found' if repeats else 'false alarms':13} {form:32} {interval(sum(found), len(found))}")
    right, wrong = (sum(sum(found) for key, found in told.items() if key[0] is repeats) for repeats in (True, False))
    there = sum(len(found) for key, found in told.items() if key[0])
    print(f"\nrecall    {interval(right, there)}\nprecision {interval(right, right + wrong)}")


def choose(cases: list[Case]) -> None:
    for letters, run, share in product((6, 8, 10), (4, 5, 6, 8), (0.4, 0.5, 0.6, 0.75)):
        likeness.WHOLE_LETTERS, likeness.RUN_WORDS, likeness.SHARE = letters, run, share  # type: ignore[misc]
        told = judge(cases)
        found, alarms = (
            [each for key, every in told.items() if key[0] is kind for each in every] for kind in (True, False)
        )
        print(f"letters {letters:2} run {run} share {share:4}: found {sum(found) / len(found):.3f}", end=" ")
        print(f"false alarms {sum(alarms) / len(alarms):.4f}")


def cost(text: str) -> None:
    """Of a call with 2,000 characters of its own, as a multiple of casefold and split of all that was read."""
    call = {"to": "someone@example.org", "body": "A remark that stands nowhere else. " * 60}
    for chars in COST_CHARS:
        read = (text * (chars // len(text) + 1))[:chars]
        told, plain = best(partial(compare, read, call)), best(partial(split, read))
        print(f"{chars:8,} characters: {told / plain:5.1f} times casefold and split, {told * 1e9 / chars:4.0f} ns each")


def compare(read: str, call: dict[str, str]) -> None:
    reading(read, "?").origins(call)


def split(read: str) -> None:
    read.casefold().split()


def best(work: Callable[[], object], rounds: int = 7) -> float:
    """Seconds of the quickest of some rounds."""
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="sweep the thresholds on the half for choosing")
    choosing = parser.parse_args().choose
    folder = Path(os.environ.get("PILOTHOUSE_DATASETS", "")) / "injection"
    if not (folder / "agentdojo").is_dir():
        sys.exit("no folder of public data: set PILOTHOUSE_DATASETS")
    cases = [case for case in (*dojo(folder / "agentdojo"), *bipia(folder / "bipia")) if case.chosen_on is choosing]
    if choosing:
        choose(cases)
        return
    report(cases)
    cost("\n".join(path.read_text() for path in sorted((folder / "agentdojo" / "suites").rglob("*.yaml"))))


if __name__ == "__main__":
    main()
