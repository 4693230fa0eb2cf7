"""Reads one page of the web: GET, at an address that was looked up and checked, within bounds, as text.

Covered: private networks, redirects to another host, answers that are too large or of another type, and URLs that
carry data out (`carried.py`). What the page says is anybody's word: it is untrusted text, whatever the host.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, ClassVar, Final, Protocol

from pydantic import Field, IPvAnyNetwork, StringConstraints
from yarl import URL

from app.config.part import Part, Seconds
from app.outbound.client import Outbound
from app.outbound.documents import fetch_document
from app.outbound.lookup import Lookup, system_lookup
from app.outbound.policy import Limits, Reach
from app.outbound.url import MAX_URL_CHARS, host_name, read
from app.services.tools.carried import Secrets, objection
from app.services.tools.tool import ToolCall, ToolOutput
from graphs.errors import ToolRefused
from graphs.types import ToolSpec

CONTENT_TYPES: Final = frozenset(
    {
        "application/json",
        "application/xhtml+xml",
        "text/html",
        "text/markdown",
        "text/plain",
        "text/x-markdown",
    }
)
_UNDER: Final = "*."
_REDIRECTS: Final = 3

HostName = Annotated[str, StringConstraints(pattern=r"^(\*\.)?[^\s/@:%*\\\[\]]{1,253}$")]


class WebFetchOptions(Part):
    """The `options` of the tool."""

    hosts: tuple[HostName, ...] = Field(
        default=(), description="Those it reads, all where there are none; *.example.org is what lies under it."
    )
    networks: tuple[IPvAnyNetwork, ...] = Field(default=(), description="Of one's own, beside the internet.")
    max_chars: int = Field(default=12_000, ge=200, le=1_000_000, description="Of the text that the model is given.")
    max_bytes: int = Field(default=2 << 20, ge=1_024, le=64 << 20, description="Of the page, unpacked.")
    max_url_chars: int = Field(default=400, ge=32, le=MAX_URL_CHARS)
    timeout_s: Seconds = 20.0

    @property
    def names(self) -> frozenset[str]:
        """The hosts as the guarded client compares them. Raises UrlInvalid."""
        return frozenset(
            f"{_UNDER}{host_name(host.removeprefix(_UNDER))}" if host.startswith(_UNDER) else host_name(host)
            for host in self.hosts
        )


@dataclass(frozen=True, slots=True)
class Page:
    """What a reader would see; the title is empty where there is none."""

    title: str
    text: str


class PageReader(Protocol):
    async def __call__(self, body: bytes, content_type: str) -> Page:
        """Raises Invalid for what cannot be read."""
        ...


Note = Callable[[ToolCall, str], Awaitable[None]]
"""Writes the SHA-256 of a URL, in hex, to the trail before anything is sent."""


class WebFetch:
    spec: ClassVar[ToolSpec] = ToolSpec(
        name="web_fetch",
        description="Read a page of the web by its URL: the text of an HTML, plain text, Markdown or JSON page.",
        parameters={
            "type": "object",
            "properties": {
                "url": {
                    "type": "string",
                    "description": "The whole address, with https://",
                    "minLength": 8,
                    "maxLength": MAX_URL_CHARS,
                    "pattern": "^https?://",
                }
            },
            "required": ["url"],
            "additionalProperties": False,
        },
        risk="outbound",
        examples=(("What does https://example.org/terms say?", {"url": "https://example.org/terms"}),),
    )
    examples: ClassVar[tuple[str, ...]] = (
        "Read https://example.org/news and sum it up.",
        "What does the page https://example.org/terms say?",
        "Open this link: https://example.org",
        "Fetch the web page at example.org.",
    )

    def __init__(
        self,
        options: WebFetchOptions,
        read_page: PageReader,
        secrets: Secrets,
        note: Note,
        *,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._options, self._names = options, options.names
        self._read_page, self._secrets, self._note, self._lookup = read_page, secrets, note, lookup

    async def run(self, call: ToolCall) -> ToolOutput:
        asked = str(call.arguments["url"])
        url = read(asked)
        reach = self._reach(url)
        if not reach.names_host(url.raw_host or ""):
            raise ToolRefused(f"only these hosts may be read: {', '.join(sorted(self._names))}")
        if (why := objection(url, self._secrets, self._options.max_url_chars)) is not None:
            raise ToolRefused(f"{why}; nothing was sent")
        await self._note(call, sha256(asked.encode("utf-8")).hexdigest())
        limits = Limits(self._options.timeout_s, self._options.max_bytes, _REDIRECTS, CONTENT_TYPES)
        fetched = await fetch_document(Outbound(reach, limits, lookup=self._lookup), asked)
        page = await self._read_page(fetched.body, fetched.content_type)
        return ToolOutput(self._shown(page, fetched.url))

    def _reach(self, url: URL) -> Reach:
        """Where this call may end up: what was approved is one host, and a redirect may not choose another."""
        if self._names:
            return Reach(networks=self._options.networks, names=self._names)
        bare = (url.raw_host or "").rstrip(".").removeprefix("www.")
        return Reach(networks=self._options.networks, names=frozenset({bare, f"www.{bare}"}))

    def _shown(self, page: Page, url: str) -> str:
        text, most = page.text.strip(), self._options.max_chars
        head = f"{page.title}\n{url}\n\n" if page.title else f"{url}\n\n"
        left = len(text) - most
        return head + (f"{text[:most]}\n[cut: {left} more characters]" if left > 0 else text or "[the page is empty]")
