"""The console's door: Gradio, mounted in the API's process and behind the API's own authentication.

Calls the runner and the store's read models, nothing else. The principal is found by the API's middleware, which must
guard every path under the mount: Gradio itself leaves several of its routes open.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount

from app.console.frame import Frame
from app.records import Principal
from app.settings import quiet_libraries
from app.workbench import Workbench

if TYPE_CHECKING:
    import gradio

MAX_UPLOAD_BYTES = 1024  # the console takes no files; Gradio's upload route is there all the same


def build_console(bench: Workbench) -> "gradio.Blocks":
    """The page, not yet mounted."""
    quiet_libraries()
    # After every event Gradio sums up all earlier ones with pandas, for a dashboard that is off here.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(sys.maxsize))
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    # Imported here because Gradio costs about 3 s, and /healthz must answer before that.
    from app.console.page import build_page

    return build_page(bench)


@asynccontextmanager
async def mount_console(api: FastAPI, bench: Workbench, path: str = "/console") -> AsyncIterator[None]:
    """The console at `path` while the context is open; `api` may already be serving."""
    # In a thread, so that the API keeps answering; with a loop there, because Gradio opens loops of its own, and
    # never closes them, where none is running.
    mounted = await asyncio.to_thread(lambda: asyncio.run(_mount(api, bench, path)))
    # Gradio hooks itself into the lifespan of `api`, which has begun by now: its own is entered here.
    async with mounted.router.lifespan_context(mounted):
        mounted.get_blocks().run_startup_events()
        await mounted.get_blocks().run_extra_startup_events()
        yield


async def _mount(api: FastAPI, bench: Workbench, path: str) -> Any:
    """Gives Gradio's own application, which is read untyped."""
    blocks = build_console(bench)
    import gradio  # loaded by now, see above

    from app.console.page import dress, head

    lifespan = api.router.lifespan_context
    gradio.mount_gradio_app(
        api,
        blocks,
        path=path,
        auth_dependency=_user_of,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_UPLOAD_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        **dress(),
    )
    api.router.lifespan_context = lifespan
    mount = next(route for route in reversed(api.routes) if isinstance(route, Mount) and route.path == path)
    page: Any = mount.app
    mount.app = Frame(page, head())
    api.add_route(path, _with_slash, methods=["GET"], include_in_schema=False)
    return page


async def _with_slash(request: Request) -> Response:
    """The page's own addresses are relative: without the slash they would point beside it."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{request.scope['path']}/{query}", 308)


def _user_of(request: Request) -> str | None:
    """The second line of defence: Gradio refuses what came past the middleware without a principal."""
    principal = request.scope.get("principal")
    return f"{principal.tenant_id}/{principal.user_id}" if isinstance(principal, Principal) else None
