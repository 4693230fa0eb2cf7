"""Who may reach the console over HTTP. Gradio leaves some of its own routes open; the guard before it must not."""

import shutil
import socket
from pathlib import Path

import gradio
import httpx
import pytest
from starlette.routing import Mount, Route

from app.console.frame import policy
from tests.console.served import Served

pytestmark = pytest.mark.timeout(400)


def test_a13_no_path_under_the_console_answers_without_a_credential(server: Served) -> None:
    mount = next(route for route in server.api.routes if isinstance(route, Mount) and route.path == "/console")
    routes = [
        (method, route.path) for route in mount.routes if isinstance(route, Route) for method in route.methods or ()
    ]
    assert len(routes) > 20
    with server.client(None) as nobody:
        answers = {(method, path): nobody.request(method, f"/console{path}").status_code for method, path in routes}
    assert {pair: status for pair, status in answers.items() if status not in (401, 302)} == {}


def test_the_address_without_a_slash_leads_to_the_page(server: Served) -> None:
    with server.client("ann") as ann:
        answer = ann.get("/console?run=x", headers={"Host": httpx.URL(server.url).netloc.decode()})
    assert (answer.status_code, answer.headers["location"]) == (308, "/console/?run=x")


def test_x02_the_page_allows_its_own_scripts_by_hash_and_nothing_from_elsewhere(server: Served) -> None:
    with server.client("ann") as ann:
        page = ann.get("/console/")
    allowed = page.headers["content-security-policy"]
    assert allowed == policy(page.content)
    assert "'unsafe-inline'" not in allowed.partition("script-src")[2].partition(";")[0]
    assert "sha256-" in allowed
    rules = dict(rule.strip().split(" ", 1) for rule in allowed.split(";") if rule.strip())
    assert {name: rules[name] for name in ("object-src", "frame-ancestors", "form-action", "connect-src")} == {
        "object-src": "'none'",
        "frame-ancestors": "'none'",
        "form-action": "'self'",
        "connect-src": "'self'",
    }
    for name in ("default-src", "img-src", "media-src", "style-src", "font-src", "script-src"):
        assert not {"*", "http:", "https:"} & set(rules[name].split()), name


def test_x06_what_was_uploaded_is_never_served_as_a_page(server: Served) -> None:
    page = b"<script>window.stolen=1</script>"
    with server.client("ann") as ann:
        up = ann.post("/console/gradio_api/upload", files={"files": ("x.html", page, "text/html")})
        for path in up.json() if up.status_code == 200 else ["x.html"]:
            answer = ann.get(f"/console/gradio_api/file={path}")
            shown = answer.headers.get("content-disposition", "")
            assert answer.status_code >= 400 or shown.startswith("attachment"), answer.headers
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("door", ["proxy=", "file=", "file/"])
def test_s08_gradio_fetches_no_url_and_no_file_for_anybody(server: Served, door: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inside, server.client("ann") as ann:
        assert ann.get("/console/gradio_api/app_id").status_code == 200  # she is let in to Gradio's own routes
        inside.settimeout(0.2)
        url = f"http://127.0.0.1:{inside.getsockname()[1]}/"
        for asked in (
            url,
            "https://x.hf.space/",
            "/etc/passwd",
            "//etc/passwd",
            "../../pyproject.toml",
            "file:///etc/passwd",
        ):
            answer = ann.get(f"/console/gradio_api/{door}{asked}", follow_redirects=False)
            assert answer.status_code in {400, 403, 404}, asked
            assert "root:" not in answer.text
        with pytest.raises(TimeoutError):
            inside.accept()


def test_v04_thousands_of_ranges_are_one_answer_of_bounded_size(server: Served) -> None:
    ranges = "bytes=" + ",".join(f"{at}-" for at in range(9_000))
    with server.client("ann") as ann:
        whole = ann.get("/console/theme.css")
        script = next(
            part for part in ann.get("/console/").text.split('"') if part.endswith(".js") and "assets" in part
        )
        for path in ("/console/theme.css", script if script.startswith("/") else "/console/" + script.lstrip("./")):
            size = len(ann.get(path).content)
            answer = ann.get(path, headers={"Range": ranges})
            assert answer.status_code in {200, 206, 400, 416}
            assert len(answer.content) <= size + 1_000
    assert whole.status_code == 200


@pytest.mark.parametrize("door", ["file=", "file/"])
def test_a14_nobody_fetches_what_another_user_sent_to_gradio(server: Served, door: str) -> None:
    """Its routes for files know no owner: whoever is signed in gets what anybody left there."""
    with server.client("ann") as ann, server.client("bob") as bob, server.client(None) as nobody:
        sent = ann.post("/console/gradio_api/upload", files={"files": ("x.txt", b"of ann", "text/plain")})
        assert (sent.status_code, sent.json()["code"]) == (404, "not_found")
        # As if it lay there: uploads of ours go through the API, which knows whose they are.
        left = Path(gradio.utils.get_upload_folder()) / ("0" * 64) / "x.txt"
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("of ann")
        try:
            answers = [each.get(f"/console/gradio_api/{door}{left}").status_code for each in (ann, bob, nobody)]
        finally:
            shutil.rmtree(left.parent)
        assert answers == [404, 404, 401]
