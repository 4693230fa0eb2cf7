"""What agents' checkpoints hold, sealed before a saver sees it and opened after it has read it.

LangGraph's own encryption binds a value to nothing: it opens in any thread, and a plain one in its place is taken. Here
each is bound to tenant, thread, namespace, its place in the thread (checkpoint, task, channel) and its type. What stays
in the clear is ids, versions, names of channels and times; a thread's steps could be put back to earlier ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from app.services.vault import Vault

SEALED: Final = "sealed:"  # begins the type of a sealed value; what it is inside follows
TABLE: Final = "checkpoints"
_TOLD: Final = ("source", "step", "parents")  # of a checkpoint's metadata; the rest is callers' and stays out
_IDS: Final = ("thread_id", "checkpoint_ns", "checkpoint_id")
_INSIDE: Final = "envelope"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A value as it lies in a row."""

    type: str
    data: bytes


class Envelopes(SerializerProtocol):
    """Lets envelopes through, and nothing else, so that no saver can write what was not sealed."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        held = obj[_INSIDE] if isinstance(obj, Mapping) else obj
        if not isinstance(held, Envelope):
            raise TypeError(f"a {type(held).__name__} was to be written without an envelope")
        return held.type, held.data

    def loads_typed(self, data: tuple[str, bytes]) -> Envelope:
        return Envelope(*data)


class Sealer:
    """Puts values into envelopes and takes them out. Without a vault envelopes are open."""

    def __init__(self, inner: SerializerProtocol, vault: Vault | None) -> None:
        self._inner, self.vault = inner, vault

    def put(self, value: Any, thread_id: str, place: Sequence[str]) -> Envelope:
        kind, data = self._inner.dumps_typed(value)
        if self.vault is None:
            return Envelope(kind, data)
        sealed = self.vault.seal(data, tenant_of(thread_id), bound(kind, thread_id, place))
        return Envelope(SEALED + kind, sealed)

    def take(self, envelope: Envelope, thread_id: str, place: Sequence[str]) -> Any:
        """Raises VaultError."""
        kind = envelope.type.removeprefix(SEALED)
        if self.vault is None:
            return self._inner.loads_typed((envelope.type, envelope.data))
        where = bound(kind, thread_id, place)
        if kind == envelope.type:
            self.vault.refuse_plain(where)
            return self._inner.loads_typed((kind, envelope.data))
        return self._inner.loads_typed((kind, self.vault.open(envelope.data, tenant_of(thread_id), where)))

    @property
    def mark(self) -> str:
        """What values begin with that are sealed with the current key; nothing where none are."""
        return "" if self.vault is None else self.vault.mark

    def anew(self, envelope: Envelope, thread_id: str, place: Sequence[str]) -> Envelope:
        """The same value under the current key. Raises VaultError."""
        if self.vault is None:
            return envelope
        kind = envelope.type.removeprefix(SEALED)
        where = bound(kind, thread_id, place)
        if kind == envelope.type:
            self.vault.refuse_plain(where)
            data = envelope.data
        else:
            data = self.vault.open(envelope.data, tenant_of(thread_id), where)
        return Envelope(SEALED + kind, self.vault.seal(data, tenant_of(thread_id), where))

    def writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str
    ) -> list[tuple[str, Envelope]]:
        thread_id, ns, checkpoint_id = _ids(config)
        return [
            (channel, self.put(value, thread_id, of_write(ns, checkpoint_id, task_id, channel)))
            for channel, value in writes
        ]

    def whole(self, config: RunnableConfig, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint in one envelope, for a saver that reads nothing of it but its id."""
        thread_id, ns, _ = _ids(config)
        sealed = self.put(checkpoint, thread_id, of_checkpoint(ns, checkpoint["id"]))
        return cast(Checkpoint, {"id": checkpoint["id"], _INSIDE: sealed})

    def values(self, config: RunnableConfig, checkpoint: Checkpoint) -> dict[str, Envelope]:
        """Those of a checkpoint's channels, each in one of its own."""
        thread_id, ns, _ = _ids(config)
        versions = checkpoint["channel_versions"]
        return {
            channel: self.put(value, thread_id, of_channel(ns, channel, versions[channel]))
            for channel, value in checkpoint["channel_values"].items()
        }

    def opened(self, found: CheckpointTuple) -> CheckpointTuple:
        """Raises VaultError."""
        thread_id, ns, checkpoint_id = _ids(found.config)
        held: Any = found.checkpoint
        if isinstance(held, Envelope):
            held = self.take(held, thread_id, of_checkpoint(ns, checkpoint_id))
        else:
            versions = held["channel_versions"]
            places = {channel: of_channel(ns, channel, versions.get(channel)) for channel in held["channel_values"]}
            values = {
                channel: self._value(value, thread_id, places[channel])
                for channel, value in held["channel_values"].items()
            }
            held = {**held, "channel_values": values}
        pending = [
            (
                task_id,
                channel,
                self.take(cast(Envelope, value), thread_id, of_write(ns, checkpoint_id, task_id, channel)),
            )
            for task_id, channel, value in found.pending_writes or []
        ]
        return found._replace(checkpoint=held, pending_writes=pending)

    def _value(self, value: Any, thread_id: str, place: Sequence[str]) -> Any:
        """Short ones lay in the clear beside their checkpoint once."""
        if isinstance(value, Envelope):
            return self.take(value, thread_id, place)
        if self.vault is not None:
            self.vault.refuse_plain(bound("", thread_id, place))
        return value


def bare_config(config: RunnableConfig) -> RunnableConfig:
    """The ids alone: a saver writes down in the clear whatever else callers put there."""
    told = config["configurable"]
    return {"configurable": {name: told[name] for name in _IDS if name in told}}


def bare(metadata: CheckpointMetadata) -> CheckpointMetadata:
    """What the graph itself tells of a step."""
    return cast(CheckpointMetadata, {name: value for name, value in metadata.items() if name in _TOLD})


def tenant_of(thread_id: str) -> str:
    return thread_id.rpartition("/")[0]


def of_checkpoint(ns: str, checkpoint_id: str) -> Sequence[str]:
    return ("checkpoint", ns, checkpoint_id)


def of_channel(ns: str, channel: str, version: Any) -> Sequence[str]:
    return ("value", ns, channel, str(version))


def of_write(ns: str, checkpoint_id: str, task_id: str, channel: str) -> Sequence[str]:
    return ("write", ns, checkpoint_id, task_id, channel)


def bound(kind: str, thread_id: str, place: Sequence[str]) -> Sequence[str]:
    """The place of a value as the vault has it."""
    return (TABLE, place[0], thread_id, *place[1:], kind)


def _ids(config: RunnableConfig) -> tuple[str, str, str]:
    """Thread, namespace, checkpoint."""
    told = config["configurable"]
    return str(told["thread_id"]), str(told.get("checkpoint_ns", "")), str(told.get("checkpoint_id", ""))
