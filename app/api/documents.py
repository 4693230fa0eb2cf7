"""Documents: taken in, listed, opened at a citation, deleted.

A document is named by its collection and the caller's own id, which may hold slashes. The collection "handbook" is
everybody's to read and nobody's to write.
"""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Annotated, Any, Final
from unicodedata import normalize

from fastapi import APIRouter, Body, Header, Query, Request, Response
from pydantic import AfterValidator
from starlette.datastructures import UploadFile

from app.api.body import StrictRequest, StrictRoute, loads, valid
from app.api.deps import Bench, Cursor, DocumentReader, DocumentWriter, Limit
from app.api.errors import Refused
from app.api.forms import read_form
from app.api.job_views import JobOut
from app.api.once import IdempotencyKey, once
from app.api.schemas import DocumentIn, DocumentsIn, GroupsIn, PrefixIn, UploadIn, UrlsIn
from app.api.views import DocumentDetail, DocumentOut, FailedDocument, IngestOut, ListOut, Problem, listed
from app.jobs.items import INGEST, document_item, url_item
from app.names import HANDBOOK, SHARED_TENANT
from app.records import Principal
from app.services.jobs.ports import JobItem, JobRequest
from graphs.errors import DocumentTaken, Invalid, Missing, TooLarge

router = APIRouter(prefix="/api/ai/documents", tags=["documents"], route_class=StrictRoute)

MAX_FIELDS: Final = 8
MAX_FILES: Final = 100
MAX_FIELD_BYTES: Final = 128 * 1024
DIGESTED_AT_ONCE_BYTES: Final = 1024 * 1024
_OF_A_TEXT: Final = ("id", "allowGroups", "metadata")
AT_ONCE: Final = 100  # documents; a larger batch is taken in by a job, which a client's time-out does not break off

InPath = Annotated[str, AfterValidator(lambda text: normalize("NFC", text))]  # as it was named when it came

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "collection"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "May be repeated; several files are taken in by one job.",
                        },
                        "collection": {"type": "string"},
                        "id": {"type": "string", "description": "Default: the file's name."},
                        "title": {"type": "string"},
                        "metadata": {"type": "string", "description": "A JSON object of scalars."},
                        "allowGroups": {"type": "string", "description": "A JSON list: the groups that may see it."},
                        "callbackUrl": {"type": "string", "description": "Told when a job has taken it in."},
                    },
                }
            },
            "application/json": {
                "schema": {"oneOf": [each.model_json_schema() for each in (DocumentsIn, UrlsIn, PrefixIn)]}
            },
        },
    }
}


@router.post(
    "",
    summary="Add documents",
    status_code=201,
    response_model=IngestOut,
    openapi_extra=_BODY,
    responses={
        202: {"model": JobOut, "description": "A job takes them in; `jobId` says how far it is."},
        413: {"model": Problem},
        415: {"model": Problem},
    },
)
async def add_documents(
    request: Request,
    bench: Bench,
    principal: DocumentWriter,
    later: Annotated[bool, Query(alias="async", description="Answer 202 and let a job do it.")] = False,
    prefer: Annotated[str, Header(max_length=512, description="`respond-async` is `async=true`.")] = "",
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """One file as multipart, or texts as JSON. A known id is replaced; each document is whole in the index or absent.

    Of a JSON batch the documents that cannot be read are named in `failed`; if none can, the answer is a 422. More than
    100 documents, and whatever is sent with `async=true` or a `callbackUrl`, are taken in by a job: the answer is a 202
    with its `jobId`, and documents that cannot be read are named in the job's result. So are several files of one form;
    `urls` in place of `documents` are always fetched by a job; at most 100 of either. So are all objects under a
    `prefix` that the operator has opened to the tenant, at most 10,000. The same `Idempotency-Key` gives the same
    answer again; 422 if it stands for another request, 409 while the first one is at it.
    """
    later = later or "respond-async" in {part.strip().lower() for part in prefer.split(",")}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _add_files(request, bench, principal, later, idempotency_key)
    if kind == "application/json":
        body = await StrictRequest.json(request)  # type: ignore[arg-type]

        async def add(ref: str | None) -> Response:
            if isinstance(body, dict) and "urls" in body:
                return await _add_urls(valid(UrlsIn, body), bench, principal, ref)
            if isinstance(body, dict) and "prefix" in body:
                return await _add_prefix(valid(PrefixIn, body), bench, principal, ref)
            # In a thread, as below: 10,000 documents would hold up everybody for a quarter of a second.
            wanted = await asyncio.to_thread(valid, DocumentsIn, body)
            return await _add_texts(wanted, bench, principal, later, ref)

        return await once(bench.store, principal, idempotency_key, ["documents", later, body], add)
    raise Refused(415, "unsupported_media_type", "send multipart/form-data or application/json", field="Content-Type")


async def _add_files(
    request: Request, bench: Bench, principal: Principal, later: bool, idempotency_key: str | None
) -> Response:
    async with read_form(request, max_files=MAX_FILES, max_fields=MAX_FIELDS, max_field_bytes=MAX_FIELD_BYTES) as form:
        files = [each for each in form.getlist("file") if isinstance(each, UploadFile)]
        if not files:
            raise Invalid("the form needs a file in the field file", field="file")
        fields: dict[str, Any] = {name: value for name, value in form.multi_items() if name != "file"}
        wanted = valid(UploadIn, fields | _parsed(fields, "metadata", {}) | _parsed(fields, "allowGroups", None))
        if any((file.size or 0) > bench.settings.max_upload_bytes for file in files):
            raise TooLarge(f"a file may have {bench.settings.max_upload_bytes} bytes", field="file")
        if len(files) > 1 and (wanted.id or wanted.title):
            raise Invalid("several files cannot have one id or title", field="id" if wanted.id else "title")

        async def add(ref: str | None) -> Response:
            return await _take_files(files, wanted, bench, principal, later, ref)

        digests = [] if idempotency_key is None else [await _digest(file) for file in files]
        asked = ["documents", later, wanted.model_dump(), digests]
        return await once(bench.store, principal, idempotency_key, asked, add)


async def _take_files(
    files: Sequence[UploadFile], wanted: UploadIn, bench: Bench, principal: Principal, later: bool, ref: str | None
) -> Response:
    if later or len(files) > 1 or wanted.callback_url is not None:
        items = [document_item(*await _told(file, wanted), **_described(file, wanted)) for file in files]
        return await _taken_in_later(bench, principal, wanted, items, ref)
    (file,) = files
    document_id, content = await _told(file, wanted)
    told = _described(file, wanted)
    try:
        record = await bench.ingest.add(
            principal.tenant_id,
            wanted.collection,
            document_id,
            content,
            **told,
            uploaded_by=principal.user_id,
            sight=principal.sight,
        )
    except Invalid as error:
        error.field = error.field or "file"
        raise
    return _added(IngestOut(collection=wanted.collection, documents=[DocumentOut.of(record, principal)]))


def _added(documents: IngestOut) -> Response:
    return Response(documents.model_dump_json(by_alias=True), 201, media_type="application/json")


async def _digest(file: UploadFile) -> list[str]:
    """What one upload has to have in common with another to be the same."""
    digest = sha256()
    while piece := await file.read(DIGESTED_AT_ONCE_BYTES):
        await asyncio.to_thread(digest.update, piece)
    await file.seek(0)
    return [file.filename or "", file.content_type or "", digest.hexdigest()]


async def _told(file: UploadFile, wanted: UploadIn) -> tuple[str, bytes]:
    """The id that the document will have, and its content. Raises Invalid."""
    return wanted.id or _id_from(_base_name(file.filename or "")), await file.read()


def _described(file: UploadFile, wanted: UploadIn) -> dict[str, Any]:
    return {
        "filename": _base_name(file.filename or ""),
        "media_type": file.content_type or "",
        "title": wanted.title,
        "metadata": wanted.metadata,
        "allow_groups": wanted.allow_groups,
    }


async def _add_texts(wanted: DocumentsIn, bench: Bench, principal: Principal, later: bool, ref: str | None) -> Response:
    if later or wanted.callback_url is not None or len(wanted.documents) > AT_ONCE:
        items = await asyncio.to_thread(_items, wanted)
        return await _taken_in_later(bench, principal, wanted, items, ref)
    added, failed = [], []
    for place, item in enumerate(wanted.documents):
        try:
            told = _described_text(item)
            record = await bench.ingest.add(
                principal.tenant_id,
                wanted.collection,
                item.id,
                item.text,
                **told,
                uploaded_by=principal.user_id,
                sight=principal.sight,
            )
            added.append(DocumentOut.of(record, principal))
        except (Invalid, DocumentTaken) as error:
            if len(wanted.documents) == 1:
                error.field = f"documents.{place}.{error.field if error.field in _OF_A_TEXT else 'text'}"
                raise
            failed.append(FailedDocument(document_id=item.id, code=error.code, message=error.message))
    if not added:
        raise Invalid(f"none of the {len(failed)} documents can be read; the first: {failed[0].message}")
    return _added(IngestOut(collection=wanted.collection, documents=added, failed=failed))


def _items(wanted: DocumentsIn) -> list[JobItem]:
    return [document_item(item.id, item.text, **_described_text(item)) for item in wanted.documents]


def _described_text(item: DocumentIn) -> dict[str, Any]:
    return {"title": item.title, "metadata": item.metadata, "allow_groups": item.allow_groups, "trust": item.trust}


async def _add_urls(wanted: UrlsIn, bench: Bench, principal: Principal, ref: str | None) -> Response:
    items = [
        url_item(
            item.url,
            document_id=item.id,
            title=item.title,
            metadata=item.metadata,
            allow_groups=item.allow_groups,
        )
        for item in wanted.urls
    ]
    return await _taken_in_later(bench, principal, wanted, items, ref)


async def _add_prefix(wanted: PrefixIn, bench: Bench, principal: Principal, ref: str | None) -> Response:
    found = await bench.objects.listed(principal.tenant_id, wanted.prefix)
    items = [url_item(url, metadata=wanted.metadata) for url in found]
    return await _taken_in_later(bench, principal, wanted, items, ref)


async def _taken_in_later(
    bench: Bench,
    principal: Principal,
    wanted: DocumentsIn | UrlsIn | PrefixIn | UploadIn,
    items: Sequence[JobItem],
    ref: str | None,
) -> Response:
    """202 and the job, whose status is at its `Location`. The same `ref` gives the same job."""
    if wanted.collection == HANDBOOK:
        raise Invalid('the collection "handbook" is the product\'s own and takes no documents', field="collection")
    payload = {"collection": wanted.collection}
    asked = JobRequest(principal, INGEST, payload, items, idempotency_key=ref, callback_url=wanted.callback_url)
    job = JobOut.of(await bench.jobs.submit(asked))
    where = {"Location": f"/api/ai/jobs/{job.job_id}"}
    return Response(job.model_dump_json(by_alias=True), 202, where, "application/json")


@router.get("", summary="List documents", response_model=ListOut[DocumentOut])
async def list_documents(
    bench: Bench,
    principal: DocumentReader,
    limit: Limit,
    cursor: Cursor = None,
    collection: Annotated[str | None, Query(max_length=128)] = None,
) -> ListOut[DocumentOut]:
    """The tenant's that the caller may see, newest first, in one collection or in all; the handbook's where that is
    named."""
    tenant = _reader_tenant(principal, collection)
    page = await bench.store.documents.list(tenant, collection, limit, cursor, sight=principal.sight)
    return listed(page, lambda record: DocumentOut.of(record, principal))


@router.get("/{document_id:path}", summary="Open a document", response_model=DocumentDetail)
async def read_document(
    document_id: InPath,
    bench: Bench,
    principal: DocumentReader,
    collection: Annotated[str | None, Query(max_length=128)] = None,
) -> DocumentDetail:
    """With the normalised text that citations point into. Name the collection where several hold the id."""
    tenant = _reader_tenant(principal, collection)
    named = collection or await _only_collection(bench, principal, document_id)
    record = await bench.store.documents.get(tenant, named, document_id, principal.sight)
    text = await bench.store.documents.text(tenant, named, document_id, principal.sight)
    return DocumentDetail(text=text, **dict(DocumentOut.of(record, principal)))


@router.patch("/{document_id:path}", summary="Change a document's groups", response_model=DocumentOut)
async def regroup_document(
    document_id: str,
    wanted: Annotated[GroupsIn, Body()],
    bench: Bench,
    principal: DocumentWriter,
    collection: Annotated[str | None, Query(max_length=128)] = None,
) -> DocumentOut:
    """Whom it is for from now on, in searches of earlier versions too: members of any of these groups, or everybody of
    the tenant where there is none. Answers kept for others are dropped."""
    named = collection or await _only_collection(bench, principal, document_id)
    tenant = principal.tenant_id
    record = await bench.ingest.regroup(tenant, named, document_id, wanted.allow_groups, principal.sight)
    await bench.gateway.forget(tenant)
    return DocumentOut.of(record, principal)


@router.delete(
    "/{document_id:path}",
    summary="Delete a document",
    status_code=204,
    response_class=Response,
    responses={409: {"model": Problem, "description": "Several collections hold the id; name one."}},
)
async def delete_document(
    document_id: InPath,
    bench: Bench,
    principal: DocumentWriter,
    collection: Annotated[str | None, Query(max_length=128)] = None,
) -> None:
    """Its text, chunks and vectors, and the tenant's kept answers, which may quote it."""
    named = collection or await _only_collection(bench, principal, document_id)
    await bench.ingest.remove(principal.tenant_id, named, document_id, principal.sight)
    await bench.golden.forget_document(principal.tenant_id, named, document_id)
    await bench.gateway.forget(principal.tenant_id)


async def _only_collection(bench: Bench, principal: Principal, document_id: str) -> str:
    found = await bench.store.documents.find(principal.tenant_id, document_id, principal.sight)
    if not found:
        raise Missing("no such document")
    if len(found) > 1:
        raise Invalid("several collections hold this id; name one", field="collection")
    return found[0].collection


def _reader_tenant(principal: Principal, collection: str | None) -> str:
    return SHARED_TENANT if collection == HANDBOOK else principal.tenant_id


def _parsed(fields: Mapping[str, Any], name: str, empty: Any) -> dict[str, Any]:
    """A field that holds JSON as a value; one without a text is `empty`."""
    text = fields.get(name)
    if not isinstance(text, str):
        return {}
    if not text.strip():
        return {name: empty}
    try:
        return {name: loads(text.encode("utf-8", "replace"))}
    except Refused as error:
        raise Invalid(f"{name} is not JSON", field=name) from error


def _base_name(filename: str) -> str:
    """The last part of whatever path a client sent, without what cannot be shown."""
    shown = "".join(char for char in normalize("NFC", filename) if char.isprintable())
    return PurePosixPath(shown.replace("\\", "/")).name[:255]


def _id_from(name: str) -> str:
    if not name:
        raise Invalid("the file has no name; give an id", field="id")
    return name
