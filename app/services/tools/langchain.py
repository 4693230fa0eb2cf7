"""Any tool of langchain-core as one of ours.

Who the caller is comes from the run, never from the model: arguments that are named like that are taken out of the
schema and filled in here. A tool without a coroutine of its own runs in a thread, which cannot be stopped.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Self, get_args, get_type_hints

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, StructuredTool, ToolException
from langchain_core.tools import Tool as PlainTool
from langchain_core.utils.pydantic import get_fields
from pydantic import BaseModel, ValidationError

from app.config.tools import ToolConfig
from app.services.tools.content import block_text, joined
from app.services.tools.schema import usable
from app.services.tools.thread import Threads
from app.services.tools.tool import ToolCall, ToolOutput
from graphs.errors import Invalid, PilothouseError, ToolRefused, ToolRetry, UpstreamError
from graphs.types import Risk, ToolSpec

KEY: Final = "idempotency_key"
FROM_THE_RUN: Final = frozenset({"tenant_id", "user_id", "run_id", KEY})
# Inside a graph LangChain would take the graph's callbacks for its own.
_ALONE: Final = RunnableConfig(callbacks=[])


class LangChainTool:
    """`repeatable` where the tool is told which call it is, and so can have its effect once however often it runs."""

    examples: tuple[str, ...] = ()

    def __init__(self, name: str, tool: BaseTool, risk: Risk, *, places: int = 8) -> None:
        """Raises Invalid for a tool whose arguments have no schema that is used here."""
        taken = _fields(tool) | _injected(tool)
        parameters = usable(_without(_visible(name, tool), FROM_THE_RUN))
        self.spec = ToolSpec(name, tool.description, parameters, risk)
        self.repeatable = KEY in taken
        self._from_the_run = FROM_THE_RUN & taken
        self._tool = tool
        self._threads = Threads(name, places) if _blocks(tool) else None

    @classmethod
    def configured(cls, name: str, config: ToolConfig) -> Self:
        """What `config.path` names. Raises Invalid."""
        assert config.path is not None, "the configuration was checked"
        assert config.risk is not None, "the configuration was checked"
        return cls(name, _loaded(config.path, config.arguments), config.risk, places=config.max_concurrent)

    async def run(self, call: ToolCall) -> ToolOutput:
        asked = {
            "type": "tool_call",
            "id": call.idempotency_key,
            "name": self._tool.name,
            "args": {**call.arguments, **{name: getattr(call, name) for name in self._from_the_run}},
        }
        try:
            if self._threads is None:
                given = await self._tool.ainvoke(asked, _ALONE)
            else:
                given = await self._threads.run(lambda: self._tool.invoke(asked, _ALONE))
        except ToolException as error:
            raise ToolRetry(str(error)) from error
        except ValidationError as error:
            raise ToolRetry(_told(error)) from error
        except (ToolRetry, ToolRefused, PilothouseError):
            raise
        except Exception as error:  # of somebody else's tool, which may raise anything it likes
            raise UpstreamError(f"{self.spec.name} failed ({type(error).__name__})") from error
        return ToolOutput(self._content(given))

    def _content(self, given: Any) -> str:
        if not isinstance(given, ToolMessage):
            raise UpstreamError(f"{self.spec.name} gave something that is no message of a tool")
        if given.status == "error":
            raise ToolRetry(given.text)
        if isinstance(given.content, str):
            return given.content
        return joined(block_text(block) for block in given.content)


def _loaded(path: str, arguments: Mapping[str, Any]) -> BaseTool:
    """The tool at "module:attribute", or what its class makes of the arguments. Raises Invalid."""
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # of somebody else's module, which may raise anything it likes
        raise Invalid(f"{path} cannot be imported ({type(error).__name__})", field="path") from error
    if isinstance(found, type) and issubclass(found, BaseTool):
        try:
            return found(**arguments)
        except Exception as error:  # as above
            raise Invalid(f"{path} cannot be made ({type(error).__name__})", field="arguments") from error
    if not isinstance(found, BaseTool):
        raise Invalid(f"{path} is no tool of langchain-core", field="path")
    if arguments:
        raise Invalid(f"{path} is a tool already; only a class takes arguments", field="arguments")
    return found


def _visible(name: str, tool: BaseTool) -> Mapping[str, Any]:
    """The JSON schema of what a model may say."""
    schema = tool.tool_call_schema
    if isinstance(schema, dict):
        return schema
    try:
        return schema.model_json_schema() if issubclass(schema, BaseModel) else schema.schema()
    except Exception as error:  # of types that have no JSON form
        raise Invalid(f"the arguments of {name} have no JSON schema ({type(error).__name__})", field="path") from error


def _without(schema: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The schema of a tool's arguments alone: title and description of the whole are those of the tool."""
    found = {key: value for key, value in schema.items() if key not in {"title", "description"}}
    found["properties"] = {key: value for key, value in schema.get("properties", {}).items() if key not in names}
    if "required" in schema:
        found["required"] = [key for key in schema["required"] if key not in names]
    return found


def _fields(tool: BaseTool) -> set[str]:
    if isinstance(tool.args_schema, dict):
        return set(tool.args_schema.get("properties", {}))
    return set(get_fields(tool.get_input_schema() if tool.args_schema is None else tool.args_schema))


def _injected(tool: BaseTool) -> set[str]:
    """What the tool's function wants to be given by its caller beside what its schema names."""
    found: set[str] = set()
    for function in _functions(tool):
        try:
            hints = get_type_hints(function, include_extras=True)
        except (NameError, TypeError):  # a type that only its own module knows
            continue
        found |= {name for name, hint in hints.items() if any(map(_is_mark, get_args(hint)))}
    return found


def _is_mark(part: object) -> bool:
    kind = part if isinstance(part, type) else type(part)
    return issubclass(kind, InjectedToolArg)


def _functions(tool: BaseTool) -> list[Callable[..., Any]]:
    if isinstance(tool, StructuredTool | PlainTool):
        return [function for function in (tool.func, tool.coroutine) if function is not None]
    return [tool._run, tool._arun]


def _blocks(tool: BaseTool) -> bool:
    """Whether it has no coroutine of its own."""
    if isinstance(tool, StructuredTool | PlainTool):
        return tool.coroutine is None
    return type(tool)._arun is BaseTool._arun


def _told(error: ValidationError) -> str:
    """What is wrong with the arguments, without the arguments."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'/'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:3])
