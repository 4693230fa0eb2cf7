"""All HTML of the console is drawn here, by Jinja2 templates with autoescape on, and nowhere else.

A value from a model, a user, a document or a trace reaches a template as plain text and is escaped there. `Markup`
is the proof of having been drawn: `panel` shows nothing else.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.console.figures import compact, counted, money, money_mark, portion, size
from app.console.lines import lines

FOLDER: Final = Path(__file__).parent
SHOWN_CHARS: Final = 20_000  # of one value; a browser lays out more than this noticeably late


def draw(template: str, /, **values: Any) -> Markup:
    """The HTML of `templates/<template>.html`. A value that the template names and nobody gave is an error."""
    text = _environment.get_template(f"{template}.html").render(values)
    # A lone surrogate, which a model may write, cannot travel as UTF-8 and would fail the whole update.
    return Markup(text.encode("utf-8", "replace").decode("utf-8"))  # noqa: S704 - drawn with autoescape


def duration(milliseconds: float) -> str:
    if milliseconds < 1:
        return f"{milliseconds:.2f} ms"
    if milliseconds < 100:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1_000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, coarsely; a date once that says more."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 60:
        return "now"
    if seconds < 3_600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86_400:
        return f"{seconds // 3_600:.0f} h ago"
    return f"{moment:%d %b %Y}"


def percent(share: float) -> str:
    return f"{max(0.0, min(1.0, share)):.0%}"


def pretty(value: Any) -> str:
    """A text as it is; anything else as indented JSON; both cut at SHOWN_CHARS, saying so."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if len(text) <= SHOWN_CHARS:
        return text
    return f"{text[:SHOWN_CHARS]}\n… {len(text) - SHOWN_CHARS:,} more characters"


def usd(micros: int) -> str:
    return f"${micros / 1_000_000:.4f}".rstrip("0").rstrip(".") if micros else "free"


_FILTERS: Mapping[str, Any] = {
    "ago": ago,
    "compact": compact,
    "counted": counted,
    "duration": duration,
    "percent": percent,
    "lines": lines,
    "money": money,
    "money_mark": money_mark,
    "portion": portion,
    "pretty": pretty,
    "size": size,
    "usd": usd,
}

_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(_FILTERS)
