"""Scripts without spaces between words: the text leg parts them, so that a search finds what it asks for.

The embedded embedder knows English above all, so every vector here is the same one and the words alone decide.
"""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from app.services.retrieval.library import Library
from tests.services.retrieval.entries import Doc, Piece

DIMENSIONS = 8
PAGES = {
    "zh-港口": "引水员在外浮标登船,然后引导船舶进入港口。",
    "zh-密钥": "轮换所有者密钥之后,旧密钥立即失效。",
    "zh-配额": "租户超出预算时,请求会收到配额用尽的错误。",
    "zh-备份": "每天凌晨备份数据库,并保留三十天。",
    "ja-港": "水先人は外側のブイで乗船し、船を港へ案内します。",
    "ja-鍵": "所有者の鍵を更新すると、古い鍵はすぐに無効になります。",
    "th-ท่าเรือ": "เจ้าหน้าที่นำร่องขึ้นเรือที่ทุ่นด้านนอกแล้วนำเรือเข้าท่าเรือ",
    "th-สำรอง": "สำรองฐานข้อมูลทุกวันและเก็บไว้สามสิบวัน",
    "ko-항구": "도선사는 바깥 부표에서 승선하여 배를 항구로 안내합니다.",
}
QUESTIONS = {
    "引水员在哪里登船?": "zh-港口",
    "旧密钥什么时候失效": "zh-密钥",
    "配额用尽": "zh-配额",
    "数据库备份保留多久": "zh-备份",
    "水先人はどこで乗船しますか": "ja-港",
    "古い鍵はいつ無効になりますか": "ja-鍵",
    "เจ้าหน้าที่นำร่องขึ้นเรือที่ไหน": "th-ท่าเรือ",
    "สำรองฐานข้อมูลเก็บไว้กี่วัน": "th-สำรอง",
    "도선사는 어디에서 승선합니까": "ko-항구",
}


class Blind:
    """An embedder to which all texts are alike."""

    id, dimensions = "blind", DIMENSIONS

    async def embed(self, texts: list[str]) -> np.ndarray:
        return np.full((len(texts), DIMENSIONS), DIMENSIONS**-0.5, np.float32)


async def filled(folder: Path, pages: Mapping[str, str]) -> Library:
    library = await Library.open(folder, Blind())
    vectors = await Blind().embed([""])
    await library.replace("acme", "notes", [Doc(name, "", (Piece(text),), vectors) for name, text in pages.items()])
    return library


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    made = await filled(tmp_path, PAGES)
    yield made
    await made.close()


async def test_a_question_in_a_script_without_spaces_finds_its_page(library: Library) -> None:
    for question, page in QUESTIONS.items():
        found = await library.search("acme", "notes", question, limit=1)
        assert found.passages[0].document_id == page, question


async def test_a_part_of_a_sentence_without_spaces_is_a_word(library: Library) -> None:
    found = await library.search("acme", "notes", "预算", limit=1)
    assert found.passages[0].document_id == "zh-配额"


async def test_chinese_questions_find_their_paragraph(tmp_path: Path, datasets: Path) -> None:
    folder = datasets / "retrieval" / "xquad_zh"
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    library = await filled(tmp_path, {row["_id"]: row["text"] for row in rows})
    grades = dict(line.split("\t")[:2] for line in (folder / "qrels.tsv").read_text().splitlines()[1:])
    asked = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()][:60]
    hits = 0
    for query in asked:
        found = await library.search("acme", "notes", query["text"], limit=3)
        hits += grades[query["_id"]] in [passage.document_id for passage in found.passages]
    await library.close()
    assert hits >= 0.9 * len(asked)
