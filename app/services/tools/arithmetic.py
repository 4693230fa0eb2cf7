"""Evaluates arithmetic as people and models write it. A precedence parser; nothing is ever executed.

Integers and decimals are exact fractions until a function with irrational values makes a float of them, so that
0.1 + 0.2 is 0.3. Bounded in length, depth and size of numbers, so that no expression takes long.
"""

import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

from graphs.errors import ToolRetry

MAX_CHARS = 500
MAX_DEPTH = 60
MAX_BITS = 4_096  # about 1,230 digits
MAX_EXPONENT = 400
SIGNIFICANT_DIGITS = 15  # what a float holds

Number = Fraction | float

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-zπτ_][A-Za-z0-9_]*)"
    r"|(?P<sign>\*\*|//|[-+*/%^(),!]))"
)
_WRITTEN = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "²": "^2", "³": "^3", "\u00a0": " "})
_CONSTANTS = {"pi": math.pi, "π": math.pi, "e": math.e, "tau": math.tau, "τ": math.tau}

# Left and right binding powers; a power binds tighter than a sign before it and is right-associative, as on paper.
_BINDING = {
    "+": (10, 11),
    "-": (10, 11),
    "*": (20, 21),
    "/": (20, 21),
    "//": (20, 21),
    "%": (20, 21),
    "of": (20, 21),
    "^": (41, 40),
    "**": (41, 40),
}
_SIGN_BINDING = 30
_POSTFIX_BINDING = 50


def evaluate(expression: str) -> Number:
    """The value of `expression`; a Fraction where it is exact. Raises ToolRetry saying what is wrong and where.

    `%` after a value is a percentage unless a value follows it (7 % 3 is a remainder, 7% + 3 is 3.07).
    """
    if len(expression) > MAX_CHARS:
        raise ToolRetry(f"the expression has {len(expression)} characters; {MAX_CHARS} is the limit")
    parser = _Parser(list(_tokens(expression.translate(_WRITTEN))))
    try:
        return parser.whole()
    except ZeroDivisionError as error:
        raise ToolRetry("the expression divides by zero") from error
    except OverflowError as error:
        raise ToolRetry("a number in the expression is too large") from error


def show(value: Number) -> tuple[str, bool]:
    """The value in decimal, and whether that is exactly it; a float never claims to be."""
    if isinstance(value, float):
        return f"{value:.{SIGNIFICANT_DIGITS}g}", False
    if value.denominator == 1:
        return str(value.numerator), True
    with localcontext() as context:
        context.prec = 40
        quotient = Decimal(value.numerator) / Decimal(value.denominator)
        if Fraction(quotient) == value and len(quotient.as_tuple().digits) <= 2 * SIGNIFICANT_DIGITS:
            return format(quotient.normalize(), "f"), True
        context.prec = SIGNIFICANT_DIGITS
        rounded = +quotient
    return (format(rounded, "f") if -30 < rounded.adjusted() < 30 else str(rounded)), False


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise ToolRetry(f"{text[at]!r} at position {at + 1} is not arithmetic")
        kind = match.lastgroup or ""
        yield _Token(kind, match[kind], match.start(kind))
        at = match.end()


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def whole(self) -> Number:
        if not self.tokens:
            raise ToolRetry("the expression is empty")
        value = self.expression(0)
        if self.next is not None:
            raise self.unexpected()
        return value

    @property
    def next(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, text: str) -> bool:
        if self.next is not None and self.next.text == text:
            self.at += 1
            return True
        return False

    def unexpected(self) -> ToolRetry:
        if self.next is None:
            return ToolRetry("the expression ends too early")
        return ToolRetry(f"{self.next.text!r} at position {self.next.at + 1} is not expected there")

    def expression(self, least: int) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ToolRetry(f"the expression is nested more than {MAX_DEPTH} deep")
        value = self.operand()
        while (token := self.next) is not None:
            if least <= _POSTFIX_BINDING and (token.text == "!" or (token.text == "%" and not self.operand_follows())):
                self.at += 1
                value = _factorial(value) if token.text == "!" else _bounded(value / 100)
                continue
            left, right = _BINDING.get(token.text, (-1, -1))
            if left < least:
                break
            self.at += 1
            value = _combine(token.text, value, self.expression(right))
        self.depth -= 1
        return value

    def operand_follows(self) -> bool:
        if self.at + 1 >= len(self.tokens):
            return False
        after = self.tokens[self.at + 1]
        return after.text == "(" or after.kind == "number" or (after.kind == "name" and after.text != "of")

    def operand(self) -> Number:
        token = self.next
        if token is None:
            raise self.unexpected()
        if token.kind == "number":
            self.at += 1
            return _literal(token.text)
        if token.kind == "name" and token.text != "of":
            self.at += 1
            return self.named(token)
        if self.take("-"):
            return -self.expression(_SIGN_BINDING)
        if self.take("+"):
            return self.expression(_SIGN_BINDING)
        if self.take("("):
            value = self.expression(0)
            self.close()
            return value
        raise self.unexpected()

    def named(self, token: _Token) -> Number:
        name = token.text.lower()
        if not self.take("("):
            if name in _CONSTANTS:
                return _CONSTANTS[name]
            raise ToolRetry(f"{token.text!r} is no constant; there are pi, e and tau")
        if name not in FUNCTIONS:
            raise ToolRetry(f"there is no function {token.text!r}; there are {', '.join(sorted(FUNCTIONS))}")
        arguments = [self.expression(0)]
        while self.take(","):
            arguments.append(self.expression(0))
        self.close()
        least, most, function = FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            raise ToolRetry(f"{name} does not take {len(arguments)} values")
        try:
            return _bounded(function(*arguments))
        except ValueError as error:
            raise ToolRetry(f"{name} has no value there") from error

    def close(self) -> None:
        if not self.take(")"):
            raise self.unexpected()


def _literal(text: str) -> Fraction:
    _, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        raise ToolRetry(f"the exponent of {text} is beyond {MAX_EXPONENT}")
    return Fraction(text)


def _combine(sign: str, left: Number, right: Number) -> Number:
    match sign:
        case "+":
            return _bounded(left + right)
        case "-":
            return _bounded(left - right)
        case "*" | "of":
            return _bounded(left * right)
        case "/":
            return _bounded(left / right)
        case "//":
            return _bounded(left // right)
        case "%":
            return _bounded(left % right)
        case _:
            return _power(left, right)


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        times = exponent.numerator
        if base in (-1, 0, 1) and abs(times) > 2:  # such powers stay small however large the exponent
            times = (2 + times % 2) * (1 if times > 0 else -1)
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(times) > 2 * MAX_BITS:
            raise OverflowError
        return _bounded(base**times)
    value = float(base) ** float(exponent)
    if isinstance(value, complex):
        raise ToolRetry("a negative number has no real power of that exponent")
    return _bounded(value)


def _bounded(value: Number) -> Number:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise OverflowError
        return value
    value = Fraction(value)  # floor division and rounding give ints
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise OverflowError
    return value


def _sqrt(value: Number) -> Number:
    if isinstance(value, Fraction) and value >= 0:
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return math.sqrt(value)


def _round(value: Number, places: Number = Fraction(0)) -> Number:
    """Half away from zero, as on paper; Python rounds half to even."""
    if isinstance(places, float) or places.denominator != 1 or not -30 <= places <= 30:
        raise ToolRetry("round takes a whole number of places between -30 and 30")
    scale = Fraction(10) ** places.numerator
    scaled = math.floor(abs(Fraction(value)) * scale + Fraction(1, 2))
    return Fraction(scaled if value >= 0 else -scaled) / scale


def _factorial(value: Number) -> Fraction:
    if isinstance(value, float) or value.denominator != 1 or not 0 <= value <= 400:
        raise ToolRetry("a factorial needs a whole number between 0 and 400")
    return Fraction(math.factorial(value.numerator))


def _log(value: Number, base: Number) -> float:
    return math.log(value) / math.log(base)


FUNCTIONS: dict[str, tuple[int, int, Callable[..., Number]]] = {
    "abs": (1, 1, abs),
    "acos": (1, 1, math.acos),
    "asin": (1, 1, math.asin),
    "atan": (1, 1, math.atan),
    "avg": (1, 50, lambda *values: sum(values, Fraction(0)) / len(values)),
    "ceil": (1, 1, lambda value: Fraction(math.ceil(value))),
    "cos": (1, 1, math.cos),
    "degrees": (1, 1, math.degrees),
    "exp": (1, 1, math.exp),
    "factorial": (1, 1, _factorial),
    "floor": (1, 1, lambda value: Fraction(math.floor(value))),
    "ln": (1, 1, math.log),
    "log": (2, 2, _log),  # with its base; which one a bare log means differs between books
    "log10": (1, 1, math.log10),
    "log2": (1, 1, math.log2),
    "max": (1, 50, max),
    "min": (1, 50, min),
    "radians": (1, 1, math.radians),
    "round": (1, 2, _round),
    "sin": (1, 1, math.sin),
    "sqrt": (1, 1, _sqrt),
    "sum": (1, 50, lambda *values: sum(values, Fraction(0))),
    "tan": (1, 1, math.tan),
}
