"""Images and other markup that would make a reader's browser fetch something.

Only what is plainly understood and points at a listed host stays. What is understood and does not is removed; what is
not fully understood is broken with a space ("! [", "< img"), which every Markdown and HTML parser reads as text. So
reference-style images always go (their host may be named later), and so does `vec![1, 2]` become `vec! [1, 2]`.
"""

import re
from collections.abc import Set
from typing import Final
from urllib.parse import urlsplit

from app.services.guardrails.patterns import Judge, Pattern, notice

_ALT_CHARS: Final = 200
_TARGET_CHARS: Final = 600
_TAG_CHARS: Final = 800

_INLINE: Final = re.compile(rf"!\[(?:[^\[\]<>]{{0,{_ALT_CHARS}}}\]\(([^()<>\n]{{0,{_TARGET_CHARS}}})\))?")
_INLINE_BEGUN: Final = re.compile(
    rf"!(?:\Z|\[(?:[^\[\]<>]{{0,{_ALT_CHARS}}}(?:\Z|\](?:\Z|\([^()<>\n]{{0,{_TARGET_CHARS}}}\Z))))"
)
_INLINE_OPENING: Final = re.compile(r"!(?:\Z|\[)")
_TARGET: Final = re.compile(r"\s*(https?://[A-Za-z0-9._~:/?#@!$&*+,;=%-]+)(?:\s+\"[^\"\\]*\")?\s*")

_TAG: Final = re.compile(rf"<[A-Za-z][^<>]{{0,{_TAG_CHARS}}}>?")
_TAG_BEGUN: Final = re.compile(rf"<(?:\Z|[A-Za-z][^<>]{{0,{_TAG_CHARS}}}\Z)")
# Possessive repeats: an attacker's tag must not make the engine try every way to cut it.
_ATTRIBUTE: Final = r"([^\s\"'<>=`/]++)(?:\s*+=\s*+(\"[^\"]*+\"|'[^']*+'|[^\s\"'<>=`]++))?"
_WELL_FORMED: Final = re.compile(rf"<([A-Za-z][^\s\"'<>=`/]*+)(?:[\s/]++(?:{_ATTRIBUTE})?+)*+>")
_ATTRIBUTES: Final = re.compile(rf"[\s/]++{_ATTRIBUTE}")
_TAG_OPENING: Final = re.compile(r"<(?:\Z|[A-Za-z])")
_AUTOLINK: Final = re.compile(r"<(?:https?://|mailto:)[^\s<>\"'`]*>")

_ALWAYS_REMOVED: Final = frozenset({"script", "style", "iframe", "frame", "object", "embed", "base", "meta", "link"})
_FETCHING_TAGS: Final = frozenset(
    {"img", "image", "input", "video", "audio", "source", "track", "picture", "svg", "use", "feimage", "body", "portal"}
)
_FETCHING_ATTRIBUTES: Final = frozenset(
    {"src", "srcset", "style", "background", "poster", "data", "lowsrc", "dynsrc", "xlink:href", "formaction", "action"}
)


def markup_patterns(image_hosts: Set[str]) -> tuple[Pattern, ...]:
    """Patterns that keep images of `image_hosts` (lower case, without port) and remove or break the others."""
    return (
        Pattern(
            "image", _INLINE, _INLINE_BEGUN, _ALT_CHARS + _TARGET_CHARS + 6, _inline_judge(image_hosts), _INLINE_OPENING
        ),
        Pattern("markup", _TAG, _TAG_BEGUN, _TAG_CHARS + 4, _tag_judge(image_hosts), _TAG_OPENING),
    )


def listed(url: str, image_hosts: Set[str]) -> bool:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:  # a bracketed host or a port that is none: not understood, so not listed
        return False
    # User information before the host is how a listed name is made to look like the host.
    return parts.scheme in ("http", "https") and "@" not in parts.netloc and host in image_hosts


def _inline_judge(image_hosts: Set[str]) -> Judge:
    def judge(text: str, start: int, end: int) -> tuple[int, str] | None:
        if end == start + 2:
            return end, "! ["
        target = _TARGET.fullmatch(text, text.index("](", start) + 2, end - 1)
        if target and listed(target.group(1), image_hosts):
            return None
        return end, notice("image")

    return judge


def _tag_judge(image_hosts: Set[str]) -> Judge:
    def judge(text: str, start: int, end: int) -> tuple[int, str] | None:
        tag = text[start:end]
        if _AUTOLINK.fullmatch(tag):
            return None
        formed = _WELL_FORMED.fullmatch(tag)
        # Something inside that is itself replaced could take the tag's closing quote with it.
        if formed is None or "![" in tag or "-----" in tag:
            return start + 1, "< "
        name = formed.group(1).lower()
        given = [(key.lower(), value.strip("\"'")) for key, value in _ATTRIBUTES.findall(tag, len(name) + 1) if value]
        if name == "img" and _kept_image(dict(given), image_hosts):
            return None
        fetching = name in _FETCHING_TAGS and given
        acting = any(key in _FETCHING_ATTRIBUTES or key.startswith("on") for key, _ in given)
        if name in _ALWAYS_REMOVED or fetching or acting:
            return end, notice("image" if name in _FETCHING_TAGS else "markup")
        return None

    return judge


def _kept_image(attributes: dict[str, str], image_hosts: Set[str]) -> bool:
    plain = attributes.keys() <= {"src", "alt", "title", "width", "height"}
    target = _TARGET.fullmatch(attributes.get("src", ""))
    return plain and target is not None and listed(target.group(1), image_hosts)
