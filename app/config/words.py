"""Says in the words of the file what Pydantic found wrong with it, and which value may stand there."""

from collections.abc import Mapping
from typing import Any, Final

_WHOLE, _NUMBER, _MAPPING = "must be a whole number", "must be a number", "must be a mapping of keys to values"
_SAID: Final[Mapping[str, str]] = {
    "extra_forbidden": "there is no such key",
    "missing": "the key is missing",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "tuple_type": "must be a list",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} in its list",
    "too_long": "must have at most {max_length} in its list, not {actual_length}",
    "string_too_short": "must not be shorter than {min_length} characters",
    "string_too_long": "must not be longer than {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "ip_any_network": "must be an IPv4 or IPv6 network, as 10.1.0.0/16",
    "value_error": "{error}",
}


def worded(kind: str, bounds: Mapping[str, Any], otherwise: str) -> str:
    """What is wrong, by Pydantic's `kind` of error and its `bounds`; `otherwise` for a kind that has no words here."""
    words = _SAID.get(kind)
    return otherwise if words is None else words.format_map(bounds)
