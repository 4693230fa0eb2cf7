"""One server for all tests of the API, and a tenant with two users and an admin on each side of the wall."""

from collections.abc import Iterator

import httpx
import pytest

from tests.api.served import CONFIG, OWNER_KEY, Served, served

PEOPLE = {
    "ann": ("acme", ["chat", "documents"]),
    "al": ("acme", ["chat", "documents"]),
    "ada": ("acme", ["chat", "documents", "approvals", "runs"]),
    "eve": ("umbrella", ["chat", "documents", "approvals", "runs"]),
    "reader": ("acme", ["runs"]),
    "pat": ("poor", ["chat"]),
}
LIMITS = "tenants: {poor: {requests_per_minute: 1}}\n"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("api"), CONFIG + LIMITS) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for name, (tenant, scopes) in PEOPLE.items():
                made = owner.post(
                    "/api/ai/keys", json={"tenantId": tenant, "userId": name, "scopes": scopes, "name": name}
                )
                assert made.status_code == 201, made.text
                up.keys[name] = made.json()["key"]
        yield up


def _client(server: Served, who: str | None) -> Iterator[httpx.Client]:
    with server.client(who) as client:
        yield client


@pytest.fixture
def owner(server: Served) -> Iterator[httpx.Client]:
    yield from _client(server, "owner")


@pytest.fixture
def ann(server: Served) -> Iterator[httpx.Client]:
    yield from _client(server, "ann")


@pytest.fixture
def al(server: Served) -> Iterator[httpx.Client]:
    yield from _client(server, "al")


@pytest.fixture
def ada(server: Served) -> Iterator[httpx.Client]:
    yield from _client(server, "ada")


@pytest.fixture
def eve(server: Served) -> Iterator[httpx.Client]:
    yield from _client(server, "eve")


@pytest.fixture
def nobody(server: Served) -> Iterator[httpx.Client]:
    yield from _client(server, None)
