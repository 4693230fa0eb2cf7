"""The reader of each format. The imports are lazy: a child process reads one file, and the others only cost time."""

from app.services.ingest.detect import Format, decode
from app.services.ingest.document import ParsedDocument


def read(kind: Format, data: bytes) -> ParsedDocument:
    """Raises DocumentUnreadable, and whatever else a hostile file makes of its library: call it in a child process."""
    if kind in {"markdown", "text"}:
        from app.services.ingest.markdown import parse_markdown, parse_text

        return (parse_markdown if kind == "markdown" else parse_text)(decode(data))
    if kind == "pdf":
        from app.services.ingest.pdf import parse_pdf as parse
    elif kind == "html":
        from app.services.ingest.html import parse_html as parse
    elif kind == "docx":
        from app.services.ingest.word import parse_docx as parse
    elif kind == "pptx":
        from app.services.ingest.slides import parse_pptx as parse
    elif kind == "xlsx":
        from app.services.ingest.sheet import parse_xlsx as parse
    elif kind == "csv":
        from app.services.ingest.sheet import parse_csv as parse
    elif kind == "eml":
        from app.services.ingest.mail import parse_eml as parse
    elif kind == "json":
        from app.services.ingest.records import parse_json as parse
    else:
        from app.services.ingest.records import parse_jsonl as parse
    return parse(data)
