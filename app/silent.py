"""A callback manager that has nobody to tell.

LangGraph tells LangChain's callbacks of every step: an id, copies of tags and metadata, and a shielded task each time,
also where no handler listens. Our spans come from the stations, so runs go with this one, which does none of it; that
took an eighth off a run.
"""

from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForChainRun

_NOBODY: Final = UUID(int=0)


class _SilentRun(AsyncCallbackManagerForChainRun):
    def get_child(self, tag: str | None = None) -> AsyncCallbackManager:
        return SILENT

    async def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        return None

    async def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        return None


class _Silent(AsyncCallbackManager):
    def add_tags(self, tags: list[str], inherit: bool = True, remove_existing: bool = False) -> None:
        return None

    def add_metadata(self, metadata: dict[str, Any], inherit: bool = True) -> None:
        return None

    async def on_chain_start(
        self, serialized: dict[str, Any] | None, inputs: Any, run_id: UUID | None = None, **kwargs: Any
    ) -> AsyncCallbackManagerForChainRun:
        return _RUN


SILENT: Final = _Silent(handlers=[])
_RUN: Final = _SilentRun(run_id=_NOBODY, handlers=[], inheritable_handlers=[])
