"""Which tools there are, and for whom: `tools:` and `mcp_servers:` of the file.

A built-in that the file does not name is there for everybody, if it is one of those that are on by themselves. Of an
MCP server the tools that are listed are offered and no others.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from app.config.part import Environment, Part, Seconds
from app.scopes import Scope
from graphs.types import Risk

SEPARATOR: Final = "__"
MAX_NAME_CHARS: Final = 64  # of a function's name at the vendors of models

# No two underscores in a row: what stands before them in a tool's name is its server.
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](_?[A-Za-z0-9-])*$", max_length=MAX_NAME_CHARS)]
ServerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](_?[A-Za-z0-9-])*$", max_length=32)]
RemoteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=MAX_NAME_CHARS)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ImportPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=256)]
Header = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", max_length=128)]


class ToolGrant(Part):
    """Who may use a tool, and within what."""

    enabled: bool = True
    risk: Risk | None = None
    scope: Scope = Field(default="chat", description="What the key of the caller must hold.")
    tenants: tuple[str, ...] | None = Field(default=None, description="Those who may; without it every tenant.")
    timeout_s: Seconds = 30.0
    max_output_chars: int = Field(default=16_000, ge=100, le=1_000_000)
    max_concurrent: int = Field(default=8, ge=1, le=1_000, description="Calls at once in this process.")
    pin: Digest | None = Field(default=None, description="Of the definition; `pilothouse tools list` tells it.")

    def is_for(self, tenant_id: str) -> bool:
        return self.enabled and (self.tenants is None or tenant_id in self.tenants)


class ToolConfig(ToolGrant):
    """A tool of this process: one of ours, or any of langchain-core."""

    kind: Literal["builtin", "langchain"]
    path: ImportPath | None = Field(default=None, description="module:attribute of a langchain tool, or of its class.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of that class.")
    options: dict[str, Any] = Field(default_factory=dict, description="A built-in's own settings.")

    @model_validator(mode="after")
    def _belongs(self) -> "ToolConfig":
        if self.kind == "langchain":
            if self.path is None:
                raise ValueError("a tool of kind langchain needs path")
            if self.risk is None:
                raise ValueError("a tool of kind langchain needs risk: nobody else can say what it does")
            if self.options:
                raise ValueError("options are those of built-in tools; a langchain tool's class takes arguments")
        elif self.path is not None or self.arguments:
            raise ValueError("a built-in tool has neither path nor arguments")
        return self


class McpToolConfig(ToolGrant):
    """A tool of an MCP server. Its risk is the operator's to say: what the server says of itself never lowers it."""

    risk: Risk


class McpServerConfig(Part):
    """An MCP server: a child process that speaks on its standard streams, or a URL of streamable HTTP."""

    command: str | None = Field(default=None, min_length=1, max_length=4_096)
    args: tuple[str, ...] = ()
    env: tuple[Environment, ...] = Field(default=(), description="Variables that the child gets; it gets no others.")
    url: str | None = Field(default=None, max_length=2_048)
    headers_env: dict[Header, Environment] = Field(
        default_factory=dict, description="Headers, each with the variable that holds its value."
    )
    connect_timeout_s: Seconds = 10.0
    tools: dict[RemoteName, McpToolConfig] = Field(min_length=1, max_length=256)

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> "McpServerConfig":
        if (self.command is None) == (self.url is None):
            raise ValueError("a server needs either command or url")
        if self.url is None:
            if self.headers_env:
                raise ValueError("headers_env belongs to url")
            return self
        if self.args or self.env:
            raise ValueError("args and env belong to command")
        place = urlsplit(self.url)  # half an address, or a port that is no number, is a ValueError too
        if place.scheme not in {"http", "https"} or not place.hostname or place.port == 0:
            raise ValueError("url must be http:// or https:// and name a host")
        if place.username or place.password:
            raise ValueError("url must hold no user name or password; headers_env is for secrets")
        return self


def spaced(server: str, tool: str) -> str:
    """A tool's name as models and approvals have it. No other server's and no tool of this process has the same."""
    return f"{server}{SEPARATOR}{tool}"


def server_faults(
    servers: Mapping[str, McpServerConfig], environment: Mapping[str, str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What the file alone cannot know, or not of one name: variables that are not there, names that are too long."""
    for name, server in servers.items():
        at = ("mcp_servers", name)
        for index, variable in enumerate(server.env):
            if variable not in environment:
                yield (*at, "env", index), f"the environment has no {variable}"
        for header, variable in server.headers_env.items():
            if not environment.get(variable):
                yield (*at, "headers_env", header), f"the environment has no {variable}"
        for tool in server.tools:
            if len(spaced(name, tool)) > MAX_NAME_CHARS:
                yield (*at, "tools", tool), f"with its server's name it has more than {MAX_NAME_CHARS} characters"
