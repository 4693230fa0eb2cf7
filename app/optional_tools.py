"""The built-in tools that are off until the file turns them on, given to each run with what it may reach."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.config.tools import ToolConfig
from app.records import Actor, Principal
from app.services.audit import audited
from app.services.database import Database
from app.services.guardrails.secrets import named
from app.services.tables.shelf import Rows, TableShelf
from app.services.tools.builtins import grants, options_of
from app.services.tools.run_python import RunPython, RunPythonOptions
from app.services.tools.run_sql import RunSql, RunSqlOptions
from app.services.tools.tool import Tool, ToolCall
from app.services.tools.web_fetch import WebFetch, WebFetchOptions
from app.sight import Sight
from app.webpages import PageReader


@dataclass(frozen=True, slots=True)
class TablesInSight:
    """What somebody may ask of a tenant's tables. Implements `app.services.tools.run_sql.Tables`."""

    shelf: TableShelf
    tenant_id: str
    sight: Sight

    async def query(self, sql: str, *, max_rows: int, max_chars: int, wall_s: float) -> Rows:
        """Raises SqlFailed."""
        return await self.shelf.query(
            self.tenant_id, self.sight, sql, max_rows=max_rows, max_chars=max_chars, wall_s=wall_s
        )


class OptionalTools:
    """Made once, with settings that are read once; the processes that pages are read in take turns over all runs."""

    def __init__(self, tools: Mapping[str, ToolConfig], database: Database, tables: TableShelf) -> None:
        self._database, self._tables = database, tables
        on = {name for name, grant in grants(tools).items() if grant.enabled}
        self._web_fetch = self._run_sql = self._run_python = None
        if WebFetch.spec.name in on:
            fetched = options_of(tools, WebFetch.spec.name, WebFetchOptions)
            self._web_fetch = WebFetch(fetched, PageReader(), named, self._note)
        if RunSql.spec.name in on:
            self._run_sql = options_of(tools, RunSql.spec.name, RunSqlOptions)
        if RunPython.spec.name in on:
            self._run_python = RunPython(options_of(tools, RunPython.spec.name, RunPythonOptions))

    def of(self, who: Principal) -> Iterator[Tool]:
        """Those that are on, for a run of this caller."""
        if self._web_fetch is not None:
            yield self._web_fetch
        if self._run_sql is not None:
            yield RunSql(self._run_sql, TablesInSight(self._tables, who.tenant_id, who.sight))
        if self._run_python is not None:
            yield self._run_python

    async def _note(self, call: ToolCall, url_hash: str) -> None:
        async with audited(self._database) as journal:
            by = Actor(call.tenant_id, call.user_id)
            await journal.note("web.fetched", by, call.tenant_id, call.run_id, {"urlSha256": url_hash})
