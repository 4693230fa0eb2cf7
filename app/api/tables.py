"""Tables to ask in SQL: uploaded, listed and removed here, asked by agents through the tool `run_sql`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator, StringConstraints
from starlette.datastructures import UploadFile

from app.api.body import StrictRoute, loads, valid
from app.api.deps import Bench, DocumentReader, DocumentWriter
from app.api.errors import Refused
from app.api.forms import read_form
from app.api.schemas import AllowGroups
from app.api.views import ListOut, Problem
from app.records import Camel, Principal
from graphs.errors import Invalid, TooLarge

if TYPE_CHECKING:
    from app.services.tables.shelf import Table

router = APIRouter(prefix="/api/ai/tables", tags=["documents"], route_class=StrictRoute)

MAX_FIELD_BYTES: Final = 16 * 1024
TableName = Annotated[str, StringConstraints(max_length=512), AfterValidator(str.strip)]

_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "name"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "Named .csv, .tsv, .xlsx, .parquet, .jsonl or .ndjson.",
                        },
                        "name": {"type": "string", "description": "What SQL calls it: small letters, digits, _."},
                        "allowGroups": {"type": "string", "description": "A JSON list: the groups that may ask it."},
                    },
                }
            }
        },
    }
}


class TableIn(Camel):
    """The fields of an upload beside its file."""

    name: TableName
    allow_groups: AllowGroups = None


class ColumnOut(Camel):
    """`type` is DuckDB's name for it."""

    name: str
    type: str


class TableOut(Camel):
    name: str
    columns: list[ColumnOut]
    rows: int
    size_bytes: int
    allow_groups: tuple[str, ...]
    created_at: datetime
    uploaded_by: str | None = None

    @classmethod
    def of(cls, table: "Table", reader: Principal) -> Self:
        """`uploaded_by` is the owner's to know."""
        return cls(
            name=table.name,
            columns=[ColumnOut(name=name, type=kind) for name, kind in table.columns],
            rows=table.rows,
            size_bytes=table.size_bytes,
            allow_groups=table.allow_groups,
            created_at=table.created_at,
            uploaded_by=table.uploaded_by if reader.is_owner else None,
        )


@router.post(
    "",
    summary="Add a table",
    status_code=201,
    response_model=TableOut,
    openapi_extra=_FORM,
    responses={413: {"model": Problem}, 415: {"model": Problem}},
)
async def add_table(request: Request, bench: Bench, principal: DocumentWriter) -> TableOut:
    """One file as multipart; of a workbook its first sheet with rows. It takes the place of a table of that name, and
    without `allowGroups` is for whom that one was."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise Refused(415, "unsupported_media_type", "send multipart/form-data", field="Content-Type")
    async with read_form(request, max_files=1, max_fields=4, max_field_bytes=MAX_FIELD_BYTES) as form:
        fields = {name: value for name, value in form.multi_items() if name != "file"}
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Invalid("the form needs a file in the field file", field="file")
        if (file.size or 0) > bench.settings.max_upload_bytes:
            raise TooLarge(f"a file may have {bench.settings.max_upload_bytes} bytes", field="file")
        wanted = valid(TableIn, fields | _groups(fields.get("allowGroups")))
        table = await bench.tables.put(
            principal.tenant_id,
            wanted.name,
            await file.read(),
            file.filename or "",
            allow_groups=wanted.allow_groups,
            sight=principal.sight,
            now=datetime.now(UTC),
            uploaded_by=principal.user_id,
        )
    return TableOut.of(table, principal)


@router.get("", summary="List tables", response_model=ListOut[TableOut])
async def list_tables(bench: Bench, principal: DocumentReader) -> ListOut[TableOut]:
    """The tenant's that the caller may ask, by name; all of them at once."""
    found = await bench.tables.list(principal.tenant_id, principal.sight)
    return ListOut(items=[TableOut.of(table, principal) for table in found])


@router.delete("/{name}", summary="Remove a table", status_code=204, response_class=Response)
async def remove_table(name: Annotated[str, Path(max_length=512)], bench: Bench, principal: DocumentWriter) -> None:
    """With its rows."""
    await bench.tables.remove(principal.tenant_id, name, principal.sight)


def _groups(text: Any) -> dict[str, Any]:
    """The field as a value; one without a text is no group at all."""
    if not isinstance(text, str):
        return {}
    if not text.strip():
        return {"allowGroups": []}
    try:
        return {"allowGroups": loads(text.encode("utf-8", "replace"))}
    except Refused as error:
        raise Invalid("allowGroups is not JSON", field="allowGroups") from error
