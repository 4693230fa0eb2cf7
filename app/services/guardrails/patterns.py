"""Forms of text that must not leave in an answer: the table of secrets, and how a pattern is made from parts.

A pattern knows its whole form and, derived from the same parts, every text that may still become it: that is what lets
a stream hold back no more than it must. All quantifiers are bounded, so a scan is linear in the text. Judges decide
what the form cannot: check digits, and where exactly a number ends.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_OPENING_CHARS: Final = 4  # enough to pass over nearly every word

# One stretch of a pattern: a character class with the least and the greatest number of repeats.
Part = tuple[str, int, int]
# Given the text and the match's bounds: where the thing ends and what replaces it, or None if it is none after all.
Judge = Callable[[str, int, int], tuple[int, str] | None]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A form of text that is replaced.

    `begun` finds, at the end of a text, what may still become a match of up to `longest_chars`. Where either matches,
    `opening` does too, and is cheaper to look for. `tail` is a class whose run after the match goes with it, however
    long. `until` instead takes all up to its own match, or `until_chars` characters where there is none. A judge may
    look 32 characters back, and ahead of the match as far as `ahead_chars` says.
    """

    name: str
    whole: re.Pattern[str]
    begun: re.Pattern[str]
    longest_chars: int
    judge: Judge
    opening: re.Pattern[str]
    tail: re.Pattern[str] | None = None
    until: re.Pattern[str] | None = None
    until_chars: int = 0
    ahead_chars: int = 0


def notice(name: str) -> str:
    """What stands in the place of something removed. No ASCII brackets: after a "!" they would be Markdown again."""
    return f"‹{name.replace('_', ' ')} removed›"


def literal(text: str) -> list[Part]:
    return [(re.escape(character), 1, 1) for character in text]


def pattern(
    name: str,
    parts: Sequence[Part],
    *,
    not_after: str = "",
    judge: Judge | None = None,
    tail: str = "",
    until: str = "",
    until_chars: int = 0,
) -> Pattern:
    """Build a pattern from parts, the first of which is one character; `not_after` is a class that may not precede."""
    assert parts[0][1:] == (1, 1), f"{name}: what may precede and where it opens are told by its first character"
    fixed = next((n for n, (_, least, most) in enumerate(parts) if least != 1 or most != 1), len(parts))
    pieces = [_repeat(*part) for part in parts]
    begun = r"\Z"
    for chars, least, most in reversed(parts[1:]):
        begun = f"(?:{_repeat(chars, 0, most)}\\Z|{_repeat(chars, least, most)}{begun})"
    first = pieces[0]
    if not_after:
        # Looking back from behind the fixed start lets the regex engine look for that start as a plain string.
        pieces.insert(fixed, f"(?<!{not_after}.{{{fixed}}})")
        first = f"{first}(?<!{not_after}.)"
    return Pattern(
        name,
        re.compile("".join(pieces), re.DOTALL),
        re.compile(first + begun, re.DOTALL),
        sum(most for _, _, most in parts) + 1,
        judge or (lambda text, start, end: (end, notice(name))),
        re.compile(_opening(parts, first), re.DOTALL),
        re.compile(f"{tail}*") if tail else None,
        re.compile(until) if until else None,
        until_chars,
    )


def _opening(parts: Sequence[Part], first: str) -> str:
    """The first characters of a match, as far as each of them must be there, or the end of the text before them."""
    certain: list[str] = []
    for chars, least, most in parts:
        certain += [chars] * least
        if least != most:
            break
    found = ""
    for chars in reversed(certain[1:_OPENING_CHARS]):
        found = f"(?:\\Z|{chars}{found})"
    return first + found


def _repeat(chars: str, least: int, most: int) -> str:
    return chars if least == most == 1 else f"{chars}{{{least},{most}}}"


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number holds."""
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(value - 9 if value > 9 else value for value in doubled)) % 10 == 0


# Issuers' ranges with the lengths in use; without them one number in ten would pass on its check digit alone.
_ISSUERS: Final = (
    (re.compile(r"4"), (19, 16, 13)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"3(?:0[0-5]|[689])"), (16, 14)),
    (re.compile(r"35(?:2[89]|[3-8])"), (16,)),
    (re.compile(r"6(?:011|5|4[4-9]|2)"), (19, 16)),
)


def _card(text: str, start: int, end: int) -> tuple[int, str] | None:
    """The longest length in use whose check digit holds; what follows may be another number, such as an expiry."""
    places = [index for index in range(start, end) if text[index].isdigit()]
    digits = "".join(text[index] for index in places)
    for issuer, lengths in _ISSUERS:
        if not issuer.match(digits):
            continue
        for length in lengths:
            stop = places[length - 1] + 1 if length <= len(places) else end
            if length <= len(places) and luhn(digits[:length]) and not text[stop : stop + 1].isdigit():
                return stop, notice("card_number")
    return None


# Countries by the length of their numbers, from the SWIFT IBAN registry.
_IBAN_COUNTRIES: Final = {
    15: "NO", 16: "BE", 18: "DK FO FI GL NL FK SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL SO", 24: "AD CZ ES MD PK RO SA SE SK TN VG DZ",
    25: "PT ST LY", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV NI HN",
    29: "BR PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_LENGTHS: Final = {code: length for length, codes in _IBAN_COUNTRIES.items() for code in codes.split()}


def _iban(text: str, start: int, end: int) -> tuple[int, str] | None:
    """As many characters as the country's numbers have, if their check digits hold (ISO 13616: remainder 1 by 97)."""
    length = _IBAN_LENGTHS.get(text[start : start + 2].upper())
    places = [index for index in range(start, end) if text[index].isalnum()]
    if length is None or len(places) < length:
        return None
    stop = places[length - 1] + 1
    number = "".join(text[index] for index in places[:length]).upper()
    remainder = int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97
    return (stop, notice("iban")) if remainder == 1 else None


def _sk(text: str, start: int, end: int) -> tuple[int, str] | None:
    """Words joined by hyphens ("sk-learn-style-names") are no key; keys hold capitals or digits."""
    return (end, notice("secret_key")) if re.search("[A-Z0-9]", text[start:end]) else None


def _aws_secret(text: str, start: int, end: int) -> tuple[int, str]:
    return end, text[start : end - 40] + notice("aws_secret")


_KEY: Final = "[A-Za-z0-9_-]"
_ALNUM: Final = "[A-Za-z0-9]"
_LETTER: Final = "[A-Za-z]"
_DIGIT: Final = "[0-9]"
_CARD_GAP: Final = "[ .\u00a0\u202f-]"
_IBAN_GAP: Final = "[ \u00a0-]"
_PEM_LABEL: Final = "[A-Z0-9 ]"
_AWS_SECRET_NAME: Final = [(f"[{a}{a.upper()}]" if a.isalpha() else a, 1, 1) for a in "aws_secret_access_key"]

SECRETS: Final[tuple[Pattern, ...]] = (
    pattern(
        "card_number",
        [
            (_DIGIT, 1, 1),
            *[(_CARD_GAP, 0, 1), (_DIGIT, 1, 1)] * 12,
            ("[0-9 .\u00a0\u202f-]", 0, 12),
        ],
        not_after=_DIGIT,
        judge=_card,
    ),
    pattern(
        "iban",
        [
            *[(_LETTER, 1, 1)] * 2,
            (_DIGIT, 2, 2),
            *[(_IBAN_GAP, 0, 1), (_ALNUM, 1, 1)] * 11,
            # One run: of eighteen pairs that need not be there the engine tries every way to have them, 50 ms a piece.
            ("[A-Za-z0-9 \u00a0-]", 0, 36),
        ],
        not_after=_LETTER,
        judge=_iban,
    ),
    pattern("aws_key_id", [*literal("A"), ("[KS]", 1, 1), *literal("IA"), ("[A-Z0-9]", 16, 16)],
            tail="[A-Z0-9]"),
    pattern("aws_secret", [*_AWS_SECRET_NAME, ("[\"']", 0, 1), (r"\s", 0, 4), ("[=:]", 1, 1), (r"\s", 0, 4),
                           ("[\"']", 0, 1), ("[A-Za-z0-9/+]", 40, 40)], judge=_aws_secret, tail="[A-Za-z0-9/+=]"),
    pattern("github_token", [*literal("gh"), ("[pousr]", 1, 1), *literal("_"), (_ALNUM, 36, 36)], tail=_ALNUM),
    pattern("github_token", [*literal("github_pat_"), ("[A-Za-z0-9_]", 22, 22)], tail="[A-Za-z0-9_]"),
    pattern("gitlab_token", [*literal("glpat-"), (_KEY, 20, 20)], tail=_KEY),
    pattern("secret_key", [*literal("sk-"), (_KEY, 20, 44)], not_after=_LETTER, judge=_sk, tail=_KEY),
    pattern("stripe_key", [("[sr]", 1, 1), *literal("k_"), ("[a-z]", 4, 4), *literal("_"), (_ALNUM, 16, 16)],
            not_after=_LETTER, tail=_ALNUM),
    pattern("slack_token", [*literal("xox"), ("[abeoprs]", 1, 1), *literal("-"), (_KEY, 10, 10)], tail=_KEY),
    pattern("google_key", [*literal("AIza"), (_KEY, 35, 35)], tail=_KEY),
    pattern("huggingface_token", [*literal("hf_"), (_ALNUM, 30, 30)], tail=_ALNUM),
    pattern("pilothouse_key", [*literal("ph_"), ("[A-Za-z0-9_]", 4, 64), *literal("_"), (_KEY, 43, 43)],
            not_after=_LETTER, tail=_KEY),
    # Header and payload of a token are JSON objects, and those begin with "eyJ" in base64; longer headers are not seen.
    pattern("jwt", [*literal("eyJ"), (_KEY, 8, 1000), *literal(".eyJ"), (_KEY, 4, 4)],
            not_after=_LETTER, tail="[A-Za-z0-9_.-]"),
    # An end marker that is missing or too far away (8,192 bits of RSA make 6,400 characters) must not let a key out.
    pattern("private_key", [*literal("-----BEGIN "), (_PEM_LABEL, 0, 24), *literal("PRIVATE KEY"),
                            (_PEM_LABEL, 0, 8), *literal("-----")],
            until=r"-----END [A-Z0-9 ]{0,24}PRIVATE KEY[A-Z0-9 ]{0,8}-----", until_chars=8192),
)  # fmt: skip
