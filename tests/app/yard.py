"""Collections as a process has them: index, store, ingest, builds, and a gateway with the file's embedding models."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.builds import Builds
from app.config.schema import Config
from app.embedders import FileEmbedders
from app.models import open_gateway
from app.records import Charge, Payer
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.ports import Hold, OpenDesk
from app.services.gateway.scripted import ScriptedProvider
from app.services.ingest.ingest import Ingest
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.golden import GoldenQuestions
from app.services.retrieval.library import Library
from app.services.retrieval.maintenance import Maintenance
from app.services.store.store import Store
from app.services.tables.shelf import TableShelf
from app.settings import Settings
from app.sight import EVERYTHING
from app.withdrawal import Withdrawal
from graphs.types import Passage


class NotedDesk(OpenDesk):
    """Bills nobody, and remembers who would have paid for which model."""

    def __init__(self) -> None:
        self.paid: list[tuple[Payer, str]] = []

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> Hold:
        self.paid.append((payer, charge.model))
        return await super().reserve(payer, charge, tokens)


@dataclass
class CollectionYard:
    store: Store
    library: Library
    gateway: ModelGateway
    desk: NotedDesk
    ingest: Ingest
    golden: GoldenQuestions
    builds: Builds
    maintenance: Maintenance
    forgotten: list[str] = field(default_factory=list)

    async def found(self, question: str, collection: str = "notes", as_of: str | None = None) -> Sequence[Passage]:
        return (await self.library.search("acme", collection, question, 50, as_of=as_of, sight=EVERYTHING)).passages


@asynccontextmanager
async def open_yard(
    home: Path, embedder: MiniLmEmbedder, config: Config | None = None, database_url: str | None = None
) -> AsyncIterator[CollectionYard]:
    settings, config, desk = Settings.offline(home), config or Config(), NotedDesk()
    forgotten: list[str] = []

    async def forget(tenant_id: str) -> None:
        forgotten.append(tenant_id)

    async with AsyncExitStack() as stack:
        store = await Store.open(database_url or settings.store_url)
        stack.push_async_callback(store.close)
        models = {"scripted": ScriptedProvider(lambda _: "nothing")}
        gateway = await open_gateway(settings, config, embedder, desk, providers=models)
        stack.push_async_callback(gateway.close)
        library = await Library.open(home / "lance", embedder, FileEmbedders(config, gateway))
        stack.push_async_callback(library.close)
        golden = GoldenQuestions(store.database)
        yield CollectionYard(
            store,
            library,
            gateway,
            desk,
            Ingest(library, store.documents),
            golden,
            Builds(library, store.documents, golden, forget),
            Maintenance(library, home / "lance"),
            forgotten,
        )


@dataclass
class Uploading:
    """The way in of documents and tables, and the way out."""

    ingest: Ingest
    tables: TableShelf
    withdrawal: Withdrawal


@asynccontextmanager
async def open_uploading(
    store: Store, home: Path, forget: Callable[[str], Awaitable[object]]
) -> AsyncIterator[Uploading]:
    """Over the store of the home, with an index of its own."""
    embedder = MiniLmEmbedder()
    library = await Library.open(home / "lance", embedder)
    ingest, tables = Ingest(library, store.documents), TableShelf(home / "tables")
    golden, maintenance = GoldenQuestions(store.database), Maintenance(library, home / "lance")
    try:
        yield Uploading(ingest, tables, Withdrawal(store, ingest, golden, maintenance, tables, forget))
    finally:
        await library.close()
        embedder.close()
