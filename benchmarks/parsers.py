"""Which library reads a format best: text recovered, time, memory and failures over a folder of real files.

    python benchmarks/parsers.py /work/shared/data/documents [--only pdf docx] [--runs 3]

Every reading is a process of its own under the limits of the product's parsers; time and memory are that process's,
less what starting Python costs. `found` is the share of the reference's words that appear in order (a longest common
subsequence), `true` the share of the text's words that do. A library that is not installed is left out and named:
the losers are not among the project's packages (pdfminer.six mammoth docx2python markitdown openpyxl).
"""

import argparse
import io
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

MEMORY_BYTES, CPU_S, WALL_S = 1 << 30, 30, 60.0
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
# What the reference's Markdown says about layout, and comments that no reader of the page sees as its text.
_MARKUP = re.compile(r"<!--.*?-->|\]\([^)]*\)|<[^>\n]{1,40}>|\|[-| :]+\|", re.DOTALL)


def pypdf(data: bytes) -> str:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted:
        reader.decrypt("")
    return "\n\n".join(page.extract_text() for page in reader.pages)


def pypdfium2(data: bytes) -> str:
    import pypdfium2

    document = pypdfium2.PdfDocument(data)
    return "\n\n".join(page.get_textpage().get_text_bounded() for page in document)


def pdfminer(data: bytes) -> str:
    from pdfminer.high_level import extract_text

    return extract_text(io.BytesIO(data))


def python_docx(data: bytes) -> str:
    import docx
    from docx.table import Table

    lines: list[str] = []
    for block in docx.Document(io.BytesIO(data)).iter_inner_content():
        if isinstance(block, Table):
            lines += [" | ".join(cell.text for cell in row.cells) for row in block.rows]
        else:
            lines.append(block.text)
    return "\n".join(lines)


def mammoth(data: bytes) -> str:
    import mammoth
    from selectolax.lexbor import LexborHTMLParser

    html = mammoth.convert_to_html(io.BytesIO(data), convert_image=mammoth.images.img_element(lambda _: {"src": ""}))
    return LexborHTMLParser(html.value or "<p>").text(separator=" ")


def docx2python(data: bytes) -> str:
    from docx2python import docx2python

    with docx2python(io.BytesIO(data)) as document:
        return document.text


def python_pptx(data: bytes) -> str:
    from pptx import Presentation

    lines: list[str] = []

    def read(shapes: Any) -> None:
        for shape in shapes:
            if shape.has_text_frame:
                lines.append(shape.text_frame.text)
            elif getattr(shape, "has_table", False) and shape.has_table:
                lines.extend(" | ".join(cell.text for cell in row.cells) for row in shape.table.rows)
            elif hasattr(shape, "shapes"):
                read(shape.shapes)

    for slide in Presentation(io.BytesIO(data)).slides:
        read(slide.shapes)
    return "\n".join(lines)


def markitdown(data: bytes) -> str:
    from markitdown import MarkItDown

    return MarkItDown().convert_stream(io.BytesIO(data)).text_content


def calamine(data: bytes) -> str:
    from python_calamine import CalamineWorkbook

    book = CalamineWorkbook.from_filelike(io.BytesIO(data))
    return _rows(row for name in book.sheet_names for row in book.get_sheet_by_name(name).to_python())


def openpyxl(data: bytes) -> str:
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    return _rows(row for sheet in book.worksheets for row in sheet.iter_rows(values_only=True))


def lexbor(data: bytes) -> str:
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(data.decode("utf-8", "replace"))
    tree.strip_tags(["script", "style", "head"])
    return tree.text(separator=" ")


def ours(data: bytes) -> str:
    """The product's own reader, whatever the format."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from app.services.ingest.reader import read

    return read(sys.argv[4], data).text


def _rows(rows: Any) -> str:
    # 15.0 is how a sheet keeps the number 15.
    shown = (
        [str(int(x)) if isinstance(x, float) and x.is_integer() else str(x) for x in row if x not in (None, "")]
        for row in rows
    )
    return "\n".join(" | ".join(row) for row in shown if row)


CANDIDATES: dict[str, tuple[Callable[[bytes], str], ...]] = {
    "pdf": (pypdf, pypdfium2, pdfminer, ours),
    "docx": (python_docx, mammoth, docx2python, markitdown, ours),
    "pptx": (python_pptx, markitdown, ours),
    "xlsx": (calamine, openpyxl, ours),
    "html": (lexbor, markitdown, ours),
    "csv": (ours,),
    "eml": (ours,),
}


def words(text: str) -> list[str]:
    return _WORD.findall(_MARKUP.sub(" ", text).lower())


def score(text: str, reference: str) -> tuple[float, float]:
    """Shares found and true."""
    from rapidfuzz.distance import LCSseq

    got, wanted = words(text), words(reference)
    common = LCSseq.similarity(wanted, got)
    return common / max(len(wanted), 1), common / max(len(got), 1)


def one(candidate: Callable[[bytes], str], data: bytes) -> dict[str, Any]:
    """In the child: read once, say what it took."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    try:
        found: dict[str, Any] = {"text": candidate(data)}
    except ImportError as error:
        found = {"absent": str(error)}
    except BaseException as error:
        found = {"error": type(error).__name__}
    took_s = time.perf_counter() - start
    return found | {"took_s": took_s, "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def apart(name: str, path: Path, kind: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, kind, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=WALL_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "hung"}
    return json.loads(done.stdout) if done.returncode == 0 else {"error": f"died ({done.returncode})"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES))
    parser.add_argument("--runs", type=int, default=3, help="readings of each file; the median time counts")
    parser.add_argument("--each", action="store_true", help="a line for every file too")
    options = parser.parse_args()
    files = [json.loads(line) for line in (options.folder / "manifest.jsonl").read_text().splitlines()]
    print(f"{'':6}{'library':13}{'n':>3}{'found':>8}{'true':>7}{'ms':>8}{'MiB':>6}  without a reference / failures")
    for kind in options.only:
        chosen = [file for file in files if file["ext"] == kind]
        for candidate in CANDIDATES[kind]:
            shares, times, memory, failures, read = [], [], [], [], 0
            for file in chosen:
                path = options.folder / file["file"]
                readings = [apart(candidate.__name__, path, kind) for _ in range(options.runs)]
                last = readings[-1]
                if "absent" in last:
                    break
                if "error" in last:
                    failures.append(f"{path.name} {last['error']}")
                    continue
                times.append(median(reading.get("took_s", WALL_S) for reading in readings) * 1000)
                memory.append(last["mib"])
                if "expected_markdown" in file and "OCR" not in file["expect"]:
                    reference = (options.folder / file["expected_markdown"]).read_text()
                    shares.append(score(last["text"], reference))
                    if options.each:
                        print(f"        {candidate.__name__:13} {path.name:60} {shares[-1][0]:.3f} {shares[-1][1]:.3f}")
                else:
                    read += 1
            if not times:
                print(f"{kind:6}{candidate.__name__:13} not installed")
                continue
            found, true = (mean(share[i] for share in shares) if shares else float("nan") for i in (0, 1))
            print(
                f"{kind:6}{candidate.__name__:13}{len(shares):3}{found:8.3f}{true:7.3f}{mean(times):8.1f}"
                f"{max(memory):6.0f}  {read} read, {len(failures)} of {len(chosen)} failed: {', '.join(failures)}"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _, _, name, kind, path = sys.argv
        sys.argv[4:] = [kind]
        print(json.dumps(one(globals()[name], Path(path).read_bytes())))
    else:
        main()
