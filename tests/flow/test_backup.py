"""A backup that is taken while a server works: killed once, taken again, and put where another server starts."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.services.retrieval.place import Place
from tests.api.served import OWNER_KEY, Served, served

WAIT_S = 100.0


def pilothouse(home: Path, *arguments: str) -> subprocess.Popen[str]:
    own = {"PILOTHOUSE_HOME": str(home), "PILOTHOUSE_MLRUNS": str(home / "mlruns")}
    command = [str(Path(sys.executable).with_name("pilothouse")), *arguments]
    return subprocess.Popen(
        command, env=os.environ | own, cwd=home.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def said(process: subprocess.Popen[str], code: int = 0) -> str:
    text, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == code, text
    return text


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def add(client: httpx.Client, name: str) -> None:
    document = {"id": name, "text": f"The lamp of {name} is lit.", "title": name}
    answer = client.post("/api/ai/documents", json={"collection": "guide", "documents": [document]})
    assert answer.status_code == 201, answer.text


@contextmanager
def busy(server: Served) -> Iterator[list[int]]:
    """Documents come, change and go, and questions are asked, until the block ends; the number of rounds so far."""
    stop, rounds, failed = threading.Event(), list[int](), list[BaseException]()

    def documents() -> None:
        with server.client("owner") as client:
            for number in range(10_000):
                add(client, f"n{number}")
                if number >= 4 and number % 2:
                    gone = client.delete(f"/api/ai/documents/n{number - 4}", params={"collection": "guide"})
                    assert gone.status_code in (200, 204), gone.text
                rounds.append(number)
                if stop.is_set():
                    return

    def questions() -> None:
        with server.client("owner") as client:
            while not stop.is_set():
                assert client.post("/api/ai/chat", json={"message": "say hello"}).json()["status"] == "completed"

    def kept(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=kept, args=(work,)) for work in (documents, questions)]
    for thread in threads:
        thread.start()
    try:
        yield rounds
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert not failed


def kill_in_the_middle(home: Path, folder: Path) -> Path:
    """The folder that a killed backup leaves. It is halfway when it waits for the index, whose turn is held here."""
    locks = home / "lance" / ".locks"
    held = os.open(locks / "round", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        process = pilothouse(home, "backup", str(folder))
        until(lambda: list(folder.parent.glob(f".{folder.name}.part-*")))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=WAIT_S)
    finally:
        os.close(held)
    (left,) = folder.parent.glob(f".{folder.name}.part-*")
    return left


async def indexed(server: Served) -> list[str]:
    shelf = server.bench.library.shelf
    snapshot = await shelf.snapshot(Place("default", "guide"))
    return sorted(set((await snapshot.table.query().select(["document_id"]).to_arrow())["document_id"].to_pylist()))


def listed(client: httpx.Client) -> list[str]:
    answer = client.get("/api/ai/documents", params={"collection": "guide", "limit": 200}).json()
    return sorted(document["documentId"] for document in answer["items"])


@pytest.mark.timeout(300)  # two servers and four commands are started, one after the other
def test_l08_a_backup_of_a_busy_installation_starts_elsewhere_as_one(tmp_path: Path) -> None:
    home, folder, other = tmp_path / "var", tmp_path / "copy", tmp_path / "other"
    home.mkdir()
    with served(home, serving=True) as server:
        server.keys["owner"] = OWNER_KEY
        with server.client("owner") as client:
            for name in ("kept", "erased"):
                add(client, name)
            client.delete("/api/ai/documents/erased", params={"collection": "guide"})
            waiting = client.post("/api/ai/chat", json={"message": "open a ticket", "mode": "agent"}).json()
            assert waiting["status"] == "waiting"
            talk = client.post("/api/ai/chat", json={"message": "say remember"}).json()
            body = {"message": "hold first", "stream": True}
            with client.stream("POST", "/api/ai/chat", json=body) as held, busy(server) as rounds:
                in_flight = held.headers["x-request-id"]
                left = kill_in_the_middle(home, folder)
                assert not folder.exists()
                assert "no whole backup" in said(pilothouse(tmp_path / "none", "restore", str(left)), 1)
                before = len(rounds)
                said(pilothouse(home, "backup", str(folder), "--with-secrets"))
                until(lambda: len(rounds) > before + 1)  # the server works on afterwards
            server.release("first")
    said(pilothouse(other, "restore", str(folder)))
    with served(other, serving=True) as server:
        server.keys["owner"] = OWNER_KEY
        with server.client("owner") as client:
            documents = listed(client)
            assert {"kept"} < set(documents)
            assert "erased" not in documents
            assert server.call(indexed(server)) == documents
            for name in documents:
                query = {"collection": "guide", "query": f"lamp of {name}", "k": 20}
                found = client.post("/api/ai/search", json=query).json()
                assert f"lamp of {name} is" in str(found["results"]), found
            conversation = client.get(f"/api/ai/conversations/{talk['conversationId']}").json()
            assert "remember" in str(conversation)
            decided = client.post(f"/api/ai/approvals/{waiting['pendingApproval']}", json={"decision": "approve"})
            assert decided.status_code == 200, decided.text

            def ended(run_id: str) -> dict[str, Any]:
                until(lambda: client.get(f"/api/ai/runs/{run_id}").json()["status"] not in ("running", "waiting"))
                return dict(client.get(f"/api/ai/runs/{run_id}").json())

            assert ended(waiting["requestId"])["status"] == "completed"
            assert len(client.get("/api/ai/tickets").json()["items"]) == 1
            assert ended(in_flight)["error"]["code"] == "interrupted"
