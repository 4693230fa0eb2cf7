"""A backup of an installation whose index is in a bucket: taken while documents come and go, the bucket copied after.

Put elsewhere, both give the same question the same answer, and nothing is half there without being told.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.buckets import Bucket
from app.services.store.store import Store
from app.settings import Settings
from tests.api.served import OWNER_KEY, Served, served
from tests.buckets import contents
from tests.flow.test_backup import add, busy, indexed, listed, pilothouse, said

CONFIG = """
providers: {own: {kind: extractive}}
models: {quoting: {provider: own, model: extractive}}
routes: {default: {candidates: [quoting]}}
"""


def places(bucket: Bucket) -> dict[str, Any]:
    """As settings."""
    return {"storage_url": str(bucket), "storage_endpoint_url": bucket.endpoint_url}


@pytest.fixture
def lying_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Bucket], None]:
    """Tells the commands where the index is."""

    def told(bucket: Bucket) -> None:
        for name, value in places(bucket).items():
            monkeypatch.setenv(f"PILOTHOUSE_{name.upper()}", value)

    return told


def answer(client: httpx.Client) -> tuple[str, list[tuple[str, str]]]:
    """The answer with the documents and texts that it cites."""
    asked = {"message": "Which lamp is lit at Kept?", "mode": "rag", "collection": "guide"}
    card = client.post("/api/ai/chat", json=asked).json()
    assert card["status"] == "completed", card
    return card["answer"], [(each["documentId"], each["quote"]) for each in card["citations"]]


def begun(server: Served) -> httpx.Client:
    server.keys["owner"] = OWNER_KEY
    return server.client("owner")


@pytest.mark.timeout(300)
async def test_l08_an_index_in_a_bucket_and_its_backup_answer_elsewhere_as_they_did(
    tmp_path: Path, new_bucket: Callable[[], Bucket], lying_in: Callable[[Bucket], None]
) -> None:
    home, folder, other = tmp_path / "var", tmp_path / "copy", tmp_path / "other"
    home.mkdir()
    bucket, copy = new_bucket(), new_bucket()
    lying_in(bucket)
    with served(home, CONFIG, serving=True, **places(bucket)) as server, begun(server) as client:
        for name in ("kept", "gone"):
            add(client, name)
        before = answer(client)
        assert ("kept", "The lamp of kept is lit.") in before[1]
        with busy(server):
            assert "copy the bucket after each backup" in said(
                pilothouse(home, "backup", str(folder), "--with-secrets"), 1
            )
        add(client, "newer")
        client.delete("/api/ai/documents/gone", params={"collection": "guide"}).raise_for_status()
    for path, content in (await contents(bucket)).items():
        await Bucket(copy.name, "", copy.endpoint_url).opened().put_async(path, content)
    lying_in(copy)
    told = said(pilothouse(other, "restore", str(folder)), 0)
    assert "documents of the index are newer than the backup" in told
    assert "ingest it again: default guide 'gone'" in told
    told = said(pilothouse(other, "restore", str(folder), "--force", "--erase-unlisted"), 0)
    assert "that the store does not list are not in the index any more" in told
    with served(other, CONFIG, serving=True, **places(copy)) as server, begun(server) as client:
        assert answer(client) == before
        held = server.call(indexed(server))
        assert "newer" not in held
        assert set(held) <= set(listed(client))
        assert "gone" in listed(client)
        add(client, "gone")
        assert "gone" in server.call(indexed(server))


async def test_a_restore_beside_a_bucket_that_is_not_there_is_refused_and_touches_nothing(
    tmp_path: Path, new_bucket: Callable[[], Bucket], lying_in: Callable[[Bucket], None]
) -> None:
    home, other = tmp_path / "var", tmp_path / "other"
    home.mkdir()
    bucket = new_bucket()
    lying_in(bucket)
    await (await Store.open(Settings.offline(home).store_url)).close()
    said(pilothouse(home, "backup", str(tmp_path / "copy"), "--files-only"))
    lying_in(Bucket("nowhere", "", bucket.endpoint_url))
    assert "there is no s3://nowhere" in said(pilothouse(other, "restore", str(tmp_path / "copy")), 1)
    assert not other.exists()
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".")]
