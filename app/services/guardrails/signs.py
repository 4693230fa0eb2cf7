"""Signs in a text that somebody wants the model to drop its instructions.

A list of phrasings in English, German, French, Spanish, Italian and Portuguese: a paraphrase passes, and a text about
injection is flagged too. What protects the platform is that a model cannot widen its rights, whatever it is told.
Encoded text is read as what it decodes to (`disguise.py`). Quantifiers are bounded.
"""

import re
import unicodedata
from typing import Final

from app.services.guardrails.disguise import unveiled

_RULES: Final = r"(?:instructions?|prompts?|rules?|directions?|guidelines?|commands?|messages?|context|constraints?)"
_OVERRIDE: Final = (
    rf"\b(?:ignore|disregard|forget|override|bypass|skip|discard)\b[^.\n]{{0,40}}"
    rf"\b(?:previous|prior|above|earlier|preceding|all|any|every|your|system|the)\b[^.\n]{{0,30}}\b{_RULES}",
    r"\b(?:ignorier|vergiss|vergessen sie|missacht|übergeh|verwirf)\w{0,8}\b[^.\n]{0,50}"
    r"\b(?:anweisung|instruktion|regel|vorgabe|befehl|richtlinie|(?:system)?prompt)",
    r"\b(?:ignor|oubli|néglige|contourne)\w{0,6}\b[^.\n]{0,50}\b(?:instructions?|consignes?|règles?|directives?)\b",
    r"\b(?:ignor|olvid|omit|descart|desconsider|esque[cç])\w{0,6}\b[^.\n]{0,50}"
    r"\b(?:instruccion|instruç|reglas?\b|regras?\b|indicaciones|directrices|órdenes|ordens)",
    r"\b(?:ignor|dimentic|trascur|scart)\w{0,6}\b[^.\n]{0,50}\b(?:istruzion|regol[ae]\b|direttiv|comandi\b)",
)
_SYSTEM_PROMPT: Final = (
    r"\b(?:reveal|show|print|repeat|output|display|tell|leak|give|write|what(?:'s| is| are))\b"
    r"[^.\n]{0,40}\b(?:system (?:prompt|message)|(?:initial|hidden) (?:prompt|instructions?)"
    r"|your (?:instructions|prompt|rules))",
    r"\b(?:zeig|nenn|verrat|wiederhol|offenbar|gib|druck|affiche|montre|révèle|répète|donne|muestra|revela|repite|dime"
    r"|mostra|rivela|ripeti|dimmi|mostre|repita)\w{0,4}\b[^.\n]{0,50}"
    r"(?:system-?\s?prompt|system-?(?:anweisung|nachricht)|prompt (?:système|del? sistema|do sistema|di sistema)"
    r"|(?:instrucciones|instructions|instruções|istruzioni) (?:del? s|do s|di s|s|inici|initi|inizi|ocult|nascost|cach)"
    r"|\b(?:deine|ihre|tes|vos|tus|tue|sus|suas) (?:anweisungen|instructions|instrucciones|istruzioni|instruções))",
)
_SIGNS: Final = {
    "override": "|".join(_OVERRIDE),
    "new_instructions": r"\b(?:new|updated|real|actual|following) (?:system )?"
    r"(?:instructions?|task|objective|directive)s?\s*:|\bfrom now on,? you\b|\bstop (?:everything|what you are doing)",
    "system_prompt": "|".join(_SYSTEM_PROMPT),
    "persona": r"\byou are (?:now|no longer)\b|\bdo anything now\b|\bjailbreak"
    r"|\b(?:act|behave|respond|pretend)\b[^.\n]{0,20}\bas (?:if you|an? unrestricted|dan\b)"
    r"|\b(?:developer|debug|god|dan|admin) mode\b",
    "no_limits": r"\bwithout (?:any )?(?:restrictions?|limitations?|filters?|censorship|ethical)"
    r"|\b(?:no|disable|turn off|remove)[^.\n]{0,20}\b(?:safety|content|guardrails?|moderation) "
    r"?(?:filters?|polic\w{1,4}|guidelines?|checks?)?\b",
    "chat_markup": r"<\|(?:im_start|im_end|system|user|assistant|endoftext)\|?>|\[/?INST\]|<</?SYS>>"
    r"|^#{2,3} ?(?:system|instruction)s?:?\s*$|\bBEGIN (?:SYSTEM|ADMIN|NEW) (?:MESSAGE|INSTRUCTIONS?|PROMPT)",
    "authority": r"\b(?:important|urgent|attention|system) (?:message|note|notice|update|override)\b[^.\n]{0,30}[:!]"
    r"|<(?:information|system|important|admin)>|\bi am (?:your|the) (?:developer|admin\w{0,10}|creator|owner)\b",
    "exfiltration": r"\b(?:send|post|upload|forward|e-?mail|transmit|exfiltrate)\b[^.\n]{0,60}"
    r"\b(?:password|secret|credential|api[ _-]?key|token|conversation|history|all (?:the )?(?:data|files|e-?mails))s?\b"
    r"[^.\n]{0,60}(?:https?://|\bto\b)",
}
_SIGN_PATTERNS: Final = {name: re.compile(sign, re.IGNORECASE | re.MULTILINE) for name, sign in _SIGNS.items()}
_INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
# A few joiners and marks are ordinary in many scripts; a run of tag characters is how text is hidden from readers.
_HIDDEN_TAGS: Final = re.compile("[\U000e0020-\U000e007f]{3}")
NAMES: Final = (*_SIGNS, "hidden_text", "disguised")


def signs(text: str) -> tuple[str, ...]:
    """Names of the signs found, in the table's order. Compatibility forms and invisible characters hide nothing."""
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    found = list(_found(plain))
    if _HIDDEN_TAGS.search(text):
        found.append("hidden_text")
    if any(not set(found).issuperset(_found(view)) for view in unveiled(plain)):
        found.append("disguised")
    return tuple(found)


def _found(text: str) -> tuple[str, ...]:
    return tuple(name for name, sign in _SIGN_PATTERNS.items() if sign.search(text))
