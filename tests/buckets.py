"""A bucket for tests: a real server of the S3 protocol on this machine, started once."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
import pytest

from app.buckets import Bucket

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def new_bucket() -> Iterator[Callable[[], Bucket]]:
    """Gives a new, empty bucket at each call; the environment has its credentials."""
    os.environ.update(CREDENTIALS)
    with subprocess.Popen([sys.executable, "-m", "tests.moto_process"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"

        def new() -> Bucket:
            name = f"test-{uuid4().hex}"
            httpx.put(f"{endpoint}/{name}", timeout=60, trust_env=False).raise_for_status()
            return Bucket(name, "install/one", endpoint)

        yield new
        server.kill()


async def contents(bucket: Bucket) -> dict[str, bytes]:
    """Every object of the whole bucket."""
    store = Bucket(bucket.name, "", bucket.endpoint_url).opened()
    found = {}
    async for listed in store.list_async():
        for each in listed:
            found[each["path"]] = bytes(await (await store.get_async(each["path"])).bytes_async())
    return found
