"""Documents out of a bucket: what the operator opened to a tenant is taken in, and nothing else can be named."""

import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest

from app.buckets import Bucket
from graphs.errors import Forbidden
from tests.api.served import CONFIG, OWNER_KEY, Served, served
from tests.api.test_jobs import ended
from tests.buckets import CREDENTIALS

pytestmark = pytest.mark.timeout(300)  # the server of the bucket is a process more to start

OBJECTS = {
    "own/birds/heron.md": b"# Herons\n\nA heron stands.\n",
    "own/birds/deep/tern.txt": b"A tern dives.",
    "own/birds/broken.pdf": b"%PDF-1.7 nothing more",
    "own/birds/large.txt": b"x" * 2_000,
    "own/birdsong/wren.md": b"A wren sings.",
    "own-too/secret.md": b"The secret is elsewhere.",
    "rival/secret.md": b"The secret is a rival's.",
}


@pytest.fixture(scope="module")
def bucket(new_bucket: Callable[[], Bucket]) -> Bucket:
    made = new_bucket()
    return Bucket(made.name, "", made.endpoint_url)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bucket: Bucket) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        store = bucket.opened()
        for key, content in OBJECTS.items():
            store.put(key, content)
        config = CONFIG + f"tenants: {{default: {{sources: [s3://{bucket.name}/own/]}}}}\n"
        given = {"storage_endpoint_url": bucket.endpoint_url, "max_upload_bytes": 1_000}
        with served(tmp_path_factory.mktemp("objects"), config, serving=True, **given) as up:
            up.keys["owner"] = OWNER_KEY
            yield up


def test_objects_under_a_prefix_are_taken_in_and_each_that_fails_says_why(owner: httpx.Client, bucket: Bucket) -> None:
    sent = owner.post("/api/ai/documents", json={"collection": "birds", "prefix": f"s3://{bucket.name}/own/birds"})
    assert sent.status_code == 202, sent.text
    job = ended(owner, sent.json()["jobId"])
    assert (job["status"], job["result"]["documents"]) == ("succeeded", 2)
    failed = {
        each["documentId"].rpartition("/")[2]: (each["code"], each["message"]) for each in job["result"]["failed"]
    }
    assert {name: code for name, (code, _) in failed.items()} == {
        "broken.pdf": "document_unreadable",
        "large.txt": "too_large",
    }
    assert all(message for _, message in failed.values())
    held = {each["documentId"] for each in owner.get("/api/ai/documents?collection=birds").json()["items"]}
    assert held == {f"s3://{bucket.name}/own/birds/{name}" for name in ("heron.md", "deep/tern.txt")}


@pytest.mark.parametrize(
    "place", ["", "rival/", "own-too/", "own/../rival/", "own//", "own/./../rival/", "own/%2e%2e/rival/", "OWN/birds/"]
)
def test_a03_a_prefix_that_is_not_opened_gives_nothing(owner: httpx.Client, bucket: Bucket, place: str) -> None:
    sent = owner.post("/api/ai/documents", json={"collection": "spied", "prefix": f"s3://{bucket.name}/{place}"})
    assert sent.status_code in {403, 404, 422}, sent.text


def test_a03_an_object_that_is_not_opened_is_not_taken_in_by_its_address(owner: httpx.Client, bucket: Bucket) -> None:
    spied = [f"s3://{bucket.name}/{key}" for key in ("rival/secret.md", "own-too/secret.md", "own/../rival/secret.md")]
    urls = [*spied, f"S3://{bucket.name}/rival/secret.md"]
    sent = owner.post("/api/ai/documents", json={"collection": "spied", "urls": urls})
    job = ended(owner, sent.json()["jobId"])
    assert (job["result"]["documents"], len(job["result"]["failed"])) == (0, len(urls))


def test_a03_another_tenant_is_not_given_what_is_opened_to_one(server: Served, bucket: Bucket) -> None:
    objects = server.bench.objects
    url = f"s3://{bucket.name}/own/birds/heron.md"
    assert asyncio.run(objects.source("default", url)).content == OBJECTS["own/birds/heron.md"]
    with pytest.raises(Forbidden):
        asyncio.run(objects.source("rival", url))
    with pytest.raises(Forbidden):
        asyncio.run(objects.listed("rival", f"s3://{bucket.name}/own/birds/"))
