"""Links to hosts that are not listed, for tenants whose answers may not lead just anywhere.

As with images, only what is plainly understood and points at a listed host stays. An address of another host is
replaced, wherever it stands; a Markdown target that is not plainly one of a listed host is broken with a space
("] ("), so that what a parser would decode there, such as "&#104;ttps:", stays text.
"""

import re
from collections.abc import Set
from typing import Final

from app.services.guardrails.markup import listed
from app.services.guardrails.patterns import Judge, Pattern, literal, notice, pattern

_TARGET_CHARS: Final = 600
_TITLE_CHARS: Final = 200
_SAFE: Final = r"[A-Za-z0-9._~:/?#@!$&*+,;=%-]"
_URL: Final = r"[^\s<>\"'`\\]"
_HTTP: Final = [("[Hh]", 1, 1), ("[Tt]", 2, 2), ("[Pp]", 1, 1), ("[Ss]", 0, 1)]
_BEHIND: Final = "])}.,:;!?*_~"  # what stands behind an address in a sentence is not of it, as in GitHub's autolinks

_TARGET: Final = re.compile(
    rf"\]\((?:\s{{0,8}}<?(https?://{_SAFE}{{1,{_TARGET_CHARS}}})>?[^()\n]{{0,{_TITLE_CHARS}}}\))?"
)
_TARGET_BEGUN: Final = re.compile(
    rf"\](?:\Z|\(\s{{0,8}}<?{_SAFE}{{0,{_TARGET_CHARS + 8}}}>?[^()\n]{{0,{_TITLE_CHARS}}}\Z)"
)
_TARGET_OPENING: Final = re.compile(r"\](?:\Z|\()")
_DEFINED: Final = re.compile(r"\]:")
_DEFINED_BEGUN: Final = re.compile(r"\]\Z")
_DEFINED_OPENING: Final = re.compile(r"\](?:\Z|:)")
_ANCHOR: Final = re.compile(r"<[Aa](?:[Rr][Ee][Aa])?[\s/]")
_ANCHOR_BEGUN: Final = re.compile(r"<(?:\Z|[Aa](?:\Z|[Rr](?:\Z|[Ee](?:\Z|[Aa]\Z))))")
_ANCHOR_OPENING: Final = re.compile(r"<(?:\Z|[Aa])")


def link_patterns(hosts: Set[str]) -> tuple[Pattern, ...]:
    """Patterns that keep links to `hosts` (lower case, without port) and take the others' addresses out."""
    longest_chars = _TARGET_CHARS + _TITLE_CHARS + 20
    return (
        Pattern("link", _TARGET, _TARGET_BEGUN, longest_chars, _target_judge(hosts), _TARGET_OPENING),
        Pattern("link", _DEFINED, _DEFINED_BEGUN, 3, _broken, _DEFINED_OPENING),
        Pattern("link", _ANCHOR, _ANCHOR_BEGUN, 7, _broken, _ANCHOR_OPENING),
        pattern(
            "link", [*_HTTP, *literal(":"), (r"[/\\]", 2, 2), (_URL, 1, _TARGET_CHARS)], judge=_address_judge(hosts)
        ),
        pattern(
            "link",
            [*[("[Ww]", 1, 1)] * 3, *literal("."), (_URL, 1, _TARGET_CHARS)],
            not_after="[A-Za-z0-9]",
            judge=_address_judge(hosts, "https://"),
        ),
    )


def _broken(text: str, start: int, end: int) -> tuple[int, str]:
    return start + 1, f"{text[start]} "


def _target_judge(hosts: Set[str]) -> Judge:
    def judge(text: str, start: int, end: int) -> tuple[int, str] | None:
        target = _TARGET.fullmatch(text, start, end)
        if target is not None and target[1] and listed(target[1], hosts):
            return None
        return start + 1, "] "

    return judge


def _address_judge(hosts: Set[str], before: str = "") -> Judge:
    def judge(text: str, start: int, end: int) -> tuple[int, str] | None:
        address = text[start:end].rstrip(_BEHIND)
        if listed(before + address, hosts):
            return None
        return start + len(address), notice("link")

    return judge
