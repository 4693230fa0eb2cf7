"""Documents by URL: bytes, the declared type, the last URL; everything else is a failure that says whose it is."""

from dataclasses import replace

import pytest

from app.outbound.client import Outbound
from app.outbound.documents import LIMITS, Fetched, fetch_document
from app.outbound.errors import AnswerTooLarge, AnswerUnexpected, OutboundRefused
from app.outbound.policy import Reach
from graphs.errors import Missing, UpstreamError, UpstreamRateLimited, UpstreamRejected
from tests.outbound.servers import LOCAL, answer, redirect, serving

DOCUMENTS = Outbound(LOCAL, LIMITS)


async def test_a_document_comes_with_its_declared_type_and_the_url_it_came_from() -> None:
    answers = {"/old": redirect("/new.pdf"), "/new.pdf": answer(b"%PDF-1.7", "Content-Type: application/pdf")}
    async with serving(lambda path: answers[path]) as server:
        fetched = await fetch_document(DOCUMENTS, server.url("/old"))
    assert fetched == Fetched(b"%PDF-1.7", "application/pdf", server.url("/new.pdf"))
    assert "application/pdf" in (server.header("accept") or "")


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        *[("404 Not Found", Missing), ("410 Gone", Missing), ("403 Forbidden", UpstreamRejected)],
        *[("204 No Content", UpstreamRejected), ("304 Not Modified", UpstreamRejected)],
        *[("429 Slow down", UpstreamRateLimited), ("500 Broken", UpstreamError), ("503 Busy", UpstreamError)],
    ],
)
async def test_what_is_no_document_says_whether_another_try_can_help(status: str, failure: type[Exception]) -> None:
    async with serving(lambda _: answer(b"", "Retry-After: 7", status=status)) as server:
        with pytest.raises(failure) as failed:
            await fetch_document(DOCUMENTS, server.url())
    assert type(failed.value) is failure
    if failure in {UpstreamRateLimited, UpstreamError}:
        assert vars(failed.value)["retry_after_s"] == 7.0


@pytest.mark.parametrize("content_type", ["image/png", "video/mp4", "application/zip", "text/event-stream"])
async def test_what_no_reader_of_documents_reads_is_not_loaded(content_type: str) -> None:
    async with serving(lambda _: answer(b"x", f"Content-Type: {content_type}")) as server:
        with pytest.raises(AnswerUnexpected) as refused:
            await fetch_document(DOCUMENTS, server.url())
    assert (refused.value.kind, refused.value.code) == ("invalid", "outbound_content_type")


async def test_a_document_over_the_limit_is_not_loaded() -> None:
    async with serving(lambda _: answer(b"x" * 101)) as server:
        with pytest.raises(AnswerTooLarge) as refused:
            await fetch_document(Outbound(LOCAL, replace(LIMITS, max_bytes=100)), server.url())
    assert (refused.value.kind, refused.value.code) == ("invalid", "outbound_too_large")


async def test_s03_a_document_is_not_fetched_from_inside_and_not_by_way_of_a_redirect() -> None:
    async with serving(lambda _: redirect("http://169.254.169.254/latest/meta-data/")) as server:
        for outbound, asked in ((Outbound(Reach(), LIMITS), 0), (DOCUMENTS, 1)):
            with pytest.raises(OutboundRefused):
                await fetch_document(outbound, server.url())
            assert len(server.requests) == asked
