"""Rules that no linter of ours knows, read from the syntax trees of the product's own code."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = tuple(path for package in ("app", "graphs", "evals") for path in sorted((ROOT / package).rglob("*.py")))

HTTP_CLIENTS = {
    *("aiohttp", "httpx", "httpcore", "httptools", "requests", "urllib.request", "urllib3", "http.client", "pycurl"),
    *("httpx2", "httpcore2", "mcp.client", "mcp.Client"),
    *("aiohappyeyeballs", "ftplib", "smtplib", "websockets", "websocket", "wsproto", "niquests", "tornado.httpclient"),
}
OPENERS = {"create_connection", "open_connection"}  # of asyncio and socket: an HTTP client made by hand
# Where a request may leave the process: to models and MCP servers, which the operator names, and guarded to all else.
SPEAK_HTTP = {
    *("app/services/gateway/connection.py", "app/services/gateway/link.py"),
    *("app/services/tools/mcp_http.py", "app/services/tools/mcp_server.py"),
    *("app/outbound/client.py", "app/outbound/lookup.py", "app/outbound/reply.py"),
    "app/patient.py",  # the serving side: what it does to clients that never read
}
GUARDED = "app/outbound"
SHOWS_HTML = "app/console/panel.py"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: ast.AST) -> Iterator[str]:
    """Full names: of modules, and of what is taken from them."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def speaks_http(module: ast.AST) -> bool:
    """An HTTP client is imported, or a connection opened without one."""
    return any(
        name == client or name.startswith(f"{client}.") for name in imports(module) for client in HTTP_CLIENTS
    ) or any(isinstance(node, ast.Attribute | ast.Name) and name_of(node) in OPENERS for node in ast.walk(module))


def name_of(node: ast.Attribute | ast.Name) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id


def reads_urls(module: ast.AST) -> bool:
    """With another reader than the one that says where the connection goes."""
    return any(taken.startswith("urllib.parse") for taken in imports(module))


def reads_url_path(module: ast.AST) -> bool:
    """`request.url.path`, `scope_url.path`: a path that the Host header had a part in."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "path"
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "url"
        for node in ast.walk(module)
    )


def shows_html(module: ast.AST) -> bool:
    """A call of Gradio's HTML component, or one that turns sanitising off."""
    return any(
        isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr == "HTML")
            or (isinstance(node.func, ast.Name) and node.func.id == "HTML")
            or any(word.arg == "sanitize_html" and not is_true(word.value) for word in node.keywords)
        )
        for node in ast.walk(module)
    )


def loads_remote(module: ast.AST) -> bool:
    """Gradio's `load` of somebody else's app: it opens a proxy to where that lies."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "load"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"gr", "gradio"}
        for node in ast.walk(module)
    )


def is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_s07_no_module_speaks_http_but_those_that_may() -> None:
    assert {name(path) for path in FILES if speaks_http(tree(path))} == SPEAK_HTTP


def test_s05_the_guarded_client_reads_urls_in_one_way() -> None:
    guarded = [path for path in FILES if name(path).startswith(f"{GUARDED}/")]
    assert guarded
    assert [name(path) for path in guarded if reads_urls(tree(path))] == []


def test_a01_no_module_decides_by_the_path_of_a_url() -> None:
    assert [name(path) for path in FILES if reads_url_path(tree(path))] == []


def test_x04_one_module_shows_html() -> None:
    assert [name(path) for path in FILES if shows_html(tree(path))] == [SHOWS_HTML]


def test_s08_the_console_loads_no_app_from_elsewhere() -> None:
    assert [name(path) for path in FILES if loads_remote(tree(path))] == []


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (loads_remote, "gr.load('spaces/somebody/app')"),
        (speaks_http, "import httpx"),
        (speaks_http, "from aiohttp import ClientSession"),
        (speaks_http, "from mcp import Client"),
        (speaks_http, "def f():\n    from urllib import request"),
        (speaks_http, "reader, writer = await asyncio.open_connection(host, 80)"),
        (speaks_http, "import http.client"),
        (reads_urls, "from urllib.parse import urlsplit"),
        (reads_url_path, "allowed = request.url.path in PUBLIC"),
        (shows_html, "gr.HTML(f'<b>{name}</b>')"),
        (shows_html, "gradio.components.HTML(text)"),
        (shows_html, "gr.Markdown(text, sanitize_html=False)"),
        (shows_html, "gr.Chatbot(sanitize_html=chosen)"),
    ],
)
def test_a_planted_breach_is_found(rule: object, code: str) -> None:
    assert callable(rule)
    assert rule(ast.parse(code))
