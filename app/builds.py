"""New builds of collections: made, judged and put in the live one's place, alike for the API, jobs and commands."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from app.services.retrieval.gate import Report, Thresholds
from app.services.retrieval.golden import GoldenQuestions
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.rebuild import Rebuild, Told, embedded_anew, silent

Forget = Callable[[str], Awaitable[object]]
"""Drops a tenant's kept answers, which quote what another build found."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a collection is to be made anew. With `keep` the build waits for `promote`, whatever the gate would say."""

    keep: bool = False
    bounds: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True, slots=True)
class Built:
    """The new build, and the gate's verdict unless it was to wait."""

    version: str
    report: Report | None

    @property
    def promoted(self) -> bool:
        return self.report is not None and self.report.passed


class Builds:
    """The builds of all tenants. Who may name a tenant is the caller's matter."""

    def __init__(self, library: Library, golden: GoldenQuestions, forget: Forget) -> None:
        self._library, self._golden, self._forget = library, golden, forget
        self._rebuild = Rebuild(library)

    async def rebuild(
        self, tenant_id: str, collection: str, wish: Wish, *, errand: str = "", told: Told = silent
    ) -> Built:
        """Make the collection anew beside the live build, and promote that if the gate lets it.

        An errand is done once: what an earlier attempt at it came to is found and not made again.

        Raises Missing, and Conflict where somebody else is at it.
        """
        before = await self._rebuild.earlier(tenant_id, collection, errand) if errand else None
        if before is not None and before.verdict is not None:
            await self._forget(tenant_id)
            return Built(before.version, before.verdict)
        if before is None:
            remake = embedded_anew(self._library.embedder)
            version = await self._rebuild.build(tenant_id, collection, remake, errand=errand, told=told)
        else:
            version = before.version
        return Built(version, None if wish.keep else await self.promote(tenant_id, collection, wish.bounds))

    async def promote(self, tenant_id: str, collection: str, bounds: Thresholds) -> Report:
        """Judge the build that waits by the golden questions; if it passes, it answers from now on.

        Raises Missing, and Conflict where none waits.
        """
        golden = await self._golden.list(tenant_id, collection)
        report = await self._rebuild.promote(tenant_id, collection, golden, bounds)
        if report.passed:
            await self._forget(tenant_id)
        return report

    async def roll_back(self, tenant_id: str, collection: str) -> str:
        """Let the build before the last promotion answer again; its version. Raises Missing, Conflict."""
        version = await self._rebuild.roll_back(Place(tenant_id, collection))
        await self._forget(tenant_id)
        return version
