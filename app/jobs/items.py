"""What the items of our job kinds look like, for those who write them and those who read them. Loads nothing heavy."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.records import RunRequest
from app.services.jobs.ports import JobItem
from graphs.types import Trust

INGEST: Final = "ingest"
RUNS: Final = "runs"


def document_item(
    document_id: str,
    content: bytes | str,
    *,
    filename: str = "",
    media_type: str = "",
    title: str = "",
    metadata: Mapping[str, Any] | None = None,
    allow_groups: Sequence[str] | None = None,
    trust: Trust = "untrusted",
) -> JobItem:
    """A document. Text stays known as text: its type is not guessed from its bytes."""
    is_text = isinstance(content, str)
    told = {
        "title": title,
        "filename": filename,
        "mediaType": media_type,
        "metadata": dict(metadata or {}),
        "allowGroups": allow_groups,
        "trust": trust,
        "isText": is_text,
    }
    return JobItem(document_id, told, content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


def url_item(
    url: str,
    *,
    document_id: str | None = None,
    title: str = "",
    metadata: Mapping[str, Any] | None = None,
    allow_groups: Sequence[str] | None = None,
) -> JobItem:
    """A document to fetch; without an id of the caller's it is named by where it is found."""
    told = {
        "url": url,
        "documentId": document_id or "",
        "title": title,
        "metadata": dict(metadata or {}),
        "allowGroups": allow_groups,
    }
    return JobItem(document_id or url, told)


def run_item(name: str, request: RunRequest) -> JobItem:
    """A run of a batch."""
    told = {
        "message": request.message,
        "mode": request.mode,
        "conversationId": request.conversation_id,
        "collection": request.collection,
        "model": request.model,
        "where": None if request.where is None else dict(request.where),
        "feature": request.feature,
    }
    return JobItem(name, told)


def run_request(told: Mapping[str, Any]) -> RunRequest:
    """The same backwards, from the item's input."""
    return RunRequest(
        message=told["message"],
        mode=told["mode"],
        conversation_id=told["conversationId"],
        collection=told["collection"],
        model=told["model"],
        where=told["where"],
        feature=told["feature"],
    )
