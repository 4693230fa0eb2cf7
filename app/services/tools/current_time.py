"""The clock, in any time zone."""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import ClassVar
from zoneinfo import ZoneInfo, available_timezones

from app.services.tools.tool import ToolCall, ToolOutput
from graphs.errors import ToolRetry
from graphs.types import ToolSpec


class CurrentTime:
    spec: ClassVar[ToolSpec] = ToolSpec(
        name="current_time",
        description="Tell the current date, weekday and time of day, in UTC or in a time zone.",
        parameters={
            "type": "object",
            "properties": {
                "timezone": {
                    "type": "string",
                    "description": "IANA name of the zone, as Europe/Berlin, or its city; UTC when left out",
                    "maxLength": 64,
                }
            },
            "additionalProperties": False,
        },
        trust="operator",
        own=True,
        examples=(
            ("What time is it?", {}),
            ("What time is it in Paris?", {"timezone": "Europe/Paris"}),
            ("What is the date in New York now?", {"timezone": "America/New_York"}),
            ("Current time in Singapore?", {"timezone": "Asia/Singapore"}),
        ),
    )
    examples: ClassVar[tuple[str, ...]] = (
        "What time is it?",
        "What time is it in Tokyo now?",
        "What is today's date?",
        "Which day of the week is today?",
        "Which month and year is it now?",
    )

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    async def run(self, call: ToolCall) -> ToolOutput:
        name = zone_name(str(call.arguments.get("timezone") or "UTC"))
        now = self._clock().astimezone(ZoneInfo(name))
        return ToolOutput(f"{now:%A, %d %B %Y, %H:%M:%S} in {name} ({now.isoformat(timespec='seconds')})")


def zone_name(wanted: str) -> str:
    """The zone of that name or city, whatever its case. Raises ToolRetry when there is none, or more than one."""
    asked = wanted.strip().replace(" ", "_").casefold()
    zones = _zones()
    if asked in zones:
        return zones[asked]
    cities = sorted(name for key, name in zones.items() if key.rpartition("/")[2] == asked)
    if len(cities) == 1:
        return cities[0]
    if cities:
        raise ToolRetry(f"{wanted!r} may be any of {', '.join(cities)}")
    raise ToolRetry(f"{wanted!r} is no time zone; name one as Europe/Berlin, America/New_York or UTC")


@cache
def _zones() -> dict[str, str]:
    return {name.casefold(): name for name in available_timezones() if not name.startswith(("posix/", "right/"))}
