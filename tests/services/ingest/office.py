"""Office files made by hand, part by part, so that a test can make what no program would write."""

import io
from zipfile import ZIP_DEFLATED, ZipFile

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"


def docx(body: str, *, head: str = '<?xml version="1.0"?>') -> bytes:
    """A Word document of that body and nothing else."""
    document = f"{head}<w:document {W}><w:body>{body}</w:body></w:document>"
    return archive({"word/document.xml": document.encode()})


def archive(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with ZipFile(out, "w", ZIP_DEFLATED, compresslevel=1) as made:
        made.writestr(
            "[Content_Types].xml",
            '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{_TYPE}"/></Types>',
        )
        made.writestr(
            "_rels/.rels",
            '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            f'<Relationship Id="r1" Type="{_RELATION}" Target="word/document.xml"/></Relationships>',
        )
        for name, content in parts.items():
            made.writestr(name, content)
    return out.getvalue()


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r></w:p>"


def xlsx(*rows: tuple[object, ...], hidden: tuple[object, ...] = (), more: str = "") -> bytes:
    """A workbook with the sheet "Costs", and a hidden one if it is to have a row. `more` is XML after the rows."""
    sheets = [("Costs", "", rows)] + ([("Secret", 'state="hidden"', (hidden,))] if hidden else [])
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    types = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    out = io.BytesIO()
    with ZipFile(out, "w", ZIP_DEFLATED) as made:
        overrides = "".join(
            f'<Override PartName="/xl/worksheets/sheet{i}.xml" ContentType="{types}.worksheet+xml"/>'
            for i in range(1, len(sheets) + 1)
        )
        made.writestr(
            "[Content_Types].xml",
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{types}.sheet.main+xml"/>{overrides}</Types>',
        )
        package = "http://schemas.openxmlformats.org/package/2006/relationships"
        made.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}"><Relationship Id="r1" Type="{rel}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        listed = "".join(
            f'<sheet name="{name}" sheetId="{i}" {state} r:id="r{i}"/>' for i, (name, state, _) in enumerate(sheets, 1)
        )
        made.writestr("xl/workbook.xml", f'<workbook {main} xmlns:r="{rel}"><sheets>{listed}</sheets></workbook>')
        links = "".join(
            f'<Relationship Id="r{i}" Type="{rel}/worksheet" Target="worksheets/sheet{i}.xml"/>'
            for i in range(1, len(sheets) + 1)
        )
        made.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}">{links}</Relationships>')
        for i, (_, _, content) in enumerate(sheets, 1):
            cells = "".join(f'<row r="{r}">{_cells(row)}</row>' for r, row in enumerate(content, 1))
            made.writestr(
                f"xl/worksheets/sheet{i}.xml", f"<worksheet {main}><sheetData>{cells}{more}</sheetData></worksheet>"
            )
    return out.getvalue()


def _cells(row: tuple[object, ...]) -> str:
    return "".join(
        f"<c><v>{value}</v></c>" if isinstance(value, int | float) else f'<c t="inlineStr"><is><t>{value}</t></is></c>'
        for value in row
    )
