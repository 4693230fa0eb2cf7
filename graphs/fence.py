"""The fence round data in a prompt. What stands inside can neither close it nor speak in another role.

Inside, whatever could be read as a fence of ours or as a model's own mark of a role loses its first character to one
that no model knows as such. That is the same for the same text, as a random fence would not be: prompts are cached.
"""

import re
from typing import Final

from graphs.types import Trust

FENCES: Final = ("passages", "tool_results", "earlier_questions")
_HIDDEN: Final = "\u00ad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff"
_GAP: Final = rf"[\s{_HIDDEN}]*"


def _disguised(name: str) -> str:
    """A pattern of the name in either case, in full width, and with nothing visible between its letters."""
    forms = ({letter, letter.upper(), _wide(letter), _wide(letter.upper())} for letter in name)
    return _GAP.join(f"[{''.join(sorted(form))}]" for form in forms)


def _wide(letter: str) -> str:
    return chr(ord(letter) + 0xFEE0)


_OURS: Final = rf"(?:[/／]{_GAP})?(?:{'|'.join(map(_disguised, FENCES))})"
_ROLES: Final = (  # of ChatML, Llama, Mistral, Gemma, Hermes and their kin
    r"\||/?s>|<SYS>|</SYS>|(?:start|end)_of_turn>|(?:bos|eos)>|/?tool_(?:call|response)s?>"
)
_OPENING: Final = re.compile(rf"[<＜﹤](?={_GAP}{_OURS}|{_ROLES})|\[(?=/?INST\])")


def fenced(text: str) -> str:
    """Data that cannot close the fence it stands in."""
    return _OPENING.sub("‹", text)


def fence(name: str, body: str) -> str:
    """The body, whose data is `fenced`, between the two ends of a fence."""
    return f"<{name}>\n{body}\n</{name}>"


def mark(trust: Trust) -> str:
    """What stands behind the title of a text, so that a model can tell whose it is."""
    return " (untrusted)" if trust == "untrusted" else ""
