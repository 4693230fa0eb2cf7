"""Forms of personal data that stand in a text by themselves: mail and network addresses, numbers of phones and people.

What has check digits or closed ranges is held to them. A phone number has neither: one without a country's sign, an
area in parentheses or the North American grouping is only taken where the words around it say that it is one. Names,
postal addresses and dates have no form of their own and are not found. Figures: benchmarks/guards.py.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from app.services.guardrails.patterns import Pattern, notice, pattern

_CONTEXT_CHARS: Final = 32  # how far before a number its word is looked for
_LOCAL: Final = "[A-Za-z0-9_.+%'-]"
_DIGIT: Final = "[0-9]"
_HEX: Final = "[0-9A-Fa-f]"
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])")
_ABROAD: Final = re.compile(r"\+|00[1-9]")
_NORTH_AMERICAN: Final = re.compile(r"(?:1[ .-])?\(?[2-9]\d\d(?:\) ?|[ .-])[2-9]\d\d[ .-]\d{4}")
_GROUPED: Final = re.compile(r"\(?\d{1,5}\)?(?:[ .\u00a0-]{1,2}\(?\d{1,9}\)?){1,6}")
_DATED: Final = re.compile(r"(?:19|20)\d\d[-. ]\d\d?[-. ]\d\d?|\d\d?[-. ]\d\d?[-. ](?:19|20)\d\d")
_EXTENSION: Final = re.compile(r" ?(?:x|ext\.? ?)\d{1,6}(?!\d)")
_CALLED: Final = re.compile(
    r"\b(?:phone|tel|fax|mobile|cell|call|dial|reach|ring|text|contact|answer|whatsapp|office)", re.I
)
_CALLED_AFTER: Final = re.compile(r"[ ,-]{0,2}(?:office|fax|home|mobile|cell|tel)\b", re.IGNORECASE)
_SOCIAL: Final = re.compile(r"\bsocial security\b|\bssn\b", re.IGNORECASE)


def _before(text: str, start: int) -> str:
    return text[max(start - _CONTEXT_CHARS, 0) : start]


def _email(text: str, start: int, end: int) -> tuple[int, str] | None:
    """A host has two labels at least and ends in letters; a full stop behind it ends the sentence."""
    at = text.index("@", start)
    host = _HOST.match(text, at + 1, end)
    return None if host is None or text[at - 1] == "." else (host.end(), notice("email"))


def _phone(text: str, start: int, end: int) -> tuple[int, str] | None:
    """7 to 15 digits (ITU-T E.164) in groups that a phone number has; an extension belongs to it."""
    while end > start and not text[end - 1].isdigit():
        end -= 1
    if text[end : end + 1].isalpha() and not _EXTENSION.match(text, end):
        return None
    found = text[start:end]
    digits = sum(map(str.isdigit, found))
    if not 7 <= digits <= 15 or found.count("(") != found.count(")"):
        return None
    plain = found.removeprefix("+")
    grouped = _GROUPED.fullmatch(plain) is not None
    international = _ABROAD.match(found) is not None and digits >= 8 and (grouped or plain.isdigit())
    if not international and not _NORTH_AMERICAN.fullmatch(found):
        named = _CALLED.search(_before(text, start)) or _CALLED_AFTER.match(text, end)
        shaped = (grouped and not _DATED.fullmatch(found)) or plain.isdigit()
        area = "(" in found and grouped
        if not shaped or not (named or area):
            return None
    extension = _EXTENSION.match(text, end)
    return (extension.end() if extension else end), notice("phone")


def _ssn(text: str, start: int, end: int) -> tuple[int, str] | None:
    """Areas, groups and serials that the Social Security Administration gives out; without hyphens it must be named."""
    found = text[start:end]
    digits = "".join(filter(str.isdigit, found))
    given = digits[:3] not in {"000", "666"} and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"
    if not given or text[end : end + 1].isdigit():
        return None
    return (end, notice("us_ssn")) if found.count("-") == 2 or _SOCIAL.search(_before(text, start)) else None


def _ipv4(text: str, start: int, end: int) -> tuple[int, str] | None:
    """Addresses of the public network: those of a house or a document tell nothing of a person."""
    if re.match(r"\.?\d", text[end : end + 2]):
        return None
    return (end, notice("ip_address")) if _is_public(IPv4Address, text[start:end]) else None


def _ipv6(text: str, start: int, end: int) -> tuple[int, str] | None:
    while end > start and text[end - 1] in ":.":
        end -= 1
    return (end, notice("ip_address")) if _is_public(IPv6Address, text[start:end]) else None


def _is_public(family: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        return family(text).is_global
    except AddressValueError:
        return False


PERSONAL: Final[tuple[Pattern, ...]] = (
    pattern(
        "email",
        [(_LOCAL, 1, 1), (_LOCAL, 0, 63), ("@", 1, 1), ("[A-Za-z0-9.-]", 4, 253)],
        not_after=_LOCAL,
        judge=_email,
    ),
    pattern(
        "us_ssn",
        [*[(_DIGIT, 1, 1)] * 3, ("[ -]", 0, 1), (_DIGIT, 2, 2), ("[ -]", 0, 1), (_DIGIT, 4, 4)],
        not_after="[0-9A-Za-z-]",
        judge=_ssn,
    ),
    pattern(
        "ip_address",
        [(_DIGIT, 1, 1), (_DIGIT, 0, 2), *[("[.]", 1, 1), (_DIGIT, 1, 3)] * 3],
        not_after="[0-9A-Za-z.]",
        judge=_ipv4,
    ),
    pattern(
        "ip_address",
        [(_HEX, 1, 1), (_HEX, 0, 3), (":", 1, 1), ("[0-9A-Fa-f:.]", 2, 40)],
        not_after="[0-9A-Za-z:]",
        judge=_ipv6,
    ),
    pattern(
        "phone",
        [("[+(0-9]", 1, 1), ("[0-9(). \u00a0-]", 5, 24), (_DIGIT, 1, 1)],
        not_after="[0-9A-Za-z_.+/=-]",
        judge=_phone,
    ),
)
KINDS: Final = tuple(dict.fromkeys(each.name for each in PERSONAL))
