"""Signs in a question that somebody wants the model to drop its instructions.

A list of phrasings, so it flags and never blocks: a paraphrase passes, and a text about injection is flagged too. What
protects the platform is that a model cannot widen its rights, whatever it is told. Quantifiers are bounded.
"""

import re
import unicodedata
from typing import Final

_RULES: Final = r"(?:instructions?|prompts?|rules?|directions?|guidelines?|commands?|messages?|context|constraints?)"
_SIGNS: Final = {
    "override": rf"\b(?:ignore|disregard|forget|override|bypass|skip|discard)\b[^.\n]{{0,40}}"
    rf"\b(?:previous|prior|above|earlier|preceding|all|any|every|your|system|the)\b[^.\n]{{0,30}}\b{_RULES}",
    "new_instructions": r"\b(?:new|updated|real|actual|following) (?:system )?"
    r"(?:instructions?|task|objective|directive)s?\s*:|\bfrom now on,? you\b|\bstop (?:everything|what you are doing)",
    "system_prompt": r"\b(?:reveal|show|print|repeat|output|display|tell|leak|give|write|what(?:'s| is| are))\b"
    r"[^.\n]{0,40}\b(?:system (?:prompt|message)|(?:initial|hidden) (?:prompt|instructions?)"
    r"|your (?:instructions|prompt|rules))",
    "persona": r"\byou are (?:now|no longer)\b|\bdo anything now\b|\bjailbreak"
    r"|\b(?:act|behave|respond|pretend)\b[^.\n]{0,20}\bas (?:if you|an? unrestricted|dan\b)"
    r"|\b(?:developer|debug|god|dan|admin) mode\b",
    "no_limits": r"\bwithout (?:any )?(?:restrictions?|limitations?|filters?|censorship|ethical)"
    r"|\b(?:no|disable|turn off|remove)[^.\n]{0,20}\b(?:safety|content|guardrails?|moderation) "
    r"?(?:filters?|polic\w+|guidelines?|checks?)?\b",
    "chat_markup": r"<\|(?:im_start|im_end|system|user|assistant|endoftext)\|?>|\[/?INST\]|<</?SYS>>"
    r"|^#{2,3} ?(?:system|instruction)s?:?\s*$|\bBEGIN (?:SYSTEM|ADMIN|NEW) (?:MESSAGE|INSTRUCTIONS?|PROMPT)",
    "authority": r"\b(?:important|urgent|attention|system) (?:message|note|notice|update|override)\b[^.\n]{0,30}[:!]"
    r"|<(?:information|system|important|admin)>|\bi am (?:your|the) (?:developer|admin\w*|creator|owner)\b",
    "exfiltration": r"\b(?:send|post|upload|forward|e-?mail|transmit|exfiltrate)\b[^.\n]{0,60}"
    r"\b(?:password|secret|credential|api[ _-]?key|token|conversation|history|all (?:the )?(?:data|files|e-?mails))s?\b"
    r"[^.\n]{0,60}(?:https?://|\bto\b)",
}
_SIGN_PATTERNS: Final = {name: re.compile(sign, re.IGNORECASE | re.MULTILINE) for name, sign in _SIGNS.items()}
_INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
# A few joiners and marks are ordinary in many scripts; a run of tag characters is how text is hidden from readers.
_HIDDEN_TAGS: Final = re.compile("[\U000e0020-\U000e007f]{3}")


def signs(text: str) -> tuple[str, ...]:
    """Names of the signs found, in the table's order. Compatibility forms and invisible characters hide nothing."""
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    found = [name for name, sign in _SIGN_PATTERNS.items() if sign.search(plain)]
    return (*found, "hidden_text") if _HIDDEN_TAGS.search(text) else tuple(found)
