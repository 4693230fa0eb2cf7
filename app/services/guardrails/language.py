"""Which language a text is in, as far as it can be told: py3langid's model of 4.6 MB, on this machine alone.

A script alone does not tell German from English, which is what an allow-list is for. Few words, code and names are
taken for all sorts of languages, so a short text is not judged, and the allowed languages get the benefit of the doubt.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

LEAST_LETTERS: Final = 24  # English beginnings called something else: 7 % of 3 to 7 letters, 0.2 % of 24 to 31
LEAST_SIGNS: Final = 6  # where a sign is a syllable or a word
SURE: Final = 0.98  # of not being in an allowed one


@cache
def identifier() -> Any:
    """The model, which the first call loads."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped] # Lazy: the model takes a second to unpack

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def foreign(text: str, allowed: Sequence[str]) -> str:
    """The language of a text that is in none of the `allowed`, as ISO 639-1; empty where that is not sure."""
    letters = [sign for sign in text if sign.isalpha()]
    enough = LEAST_SIGNS if sum(sign > "\u2e80" for sign in letters) * 2 > len(letters) else LEAST_LETTERS
    if len(letters) < enough:
        return ""
    ranked: list[tuple[str, float]] = identifier().rank(text[:4_000])
    likely = sum(probability for language, probability in ranked if language in allowed)
    return ranked[0][0] if likely < 1 - SURE else ""
