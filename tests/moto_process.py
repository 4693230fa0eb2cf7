"""An S3-compatible server as a process of its own: moto on a free port, whose number it prints.

moto looks at a conditional write's condition and writes in two steps, on many threads: of two writers who race both
may win, which no store does that this product works with. One write at a time makes it keep what S3 promises.
"""

import threading
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.responses import S3Response
from werkzeug.serving import make_server

_writing = threading.Lock()


def _one_at_a_time(name: str) -> None:
    write = getattr(S3Response, name)

    def wrapped(self: S3Response, *given: Any) -> Any:
        with _writing:
            return write(self, *given)

    setattr(S3Response, name, wrapped)


def main() -> None:
    _one_at_a_time("put_object")
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
