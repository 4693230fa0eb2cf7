import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.tools.arithmetic import MAX_CHARS, MAX_DEPTH, evaluate, show
from graphs.errors import ToolRetry


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("0.1 + 0.2", "0.3"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("2 ^ 3 ^ 2", "512"),
        ("2 * -3", "-6"),
        ("--3", "3"),
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("7 % 3", "1"),
        ("7 % (0 - 3)", "-2"),
        ("15% of 80", "12"),
        ("200 * 15%", "30"),
        ("7% + 3", "3.07"),
        ("(10 + 5)%", "0.15"),
        ("5!", "120"),
        ("2 * 3!", "12"),
        ("1e3 + .5", "1000.5"),
        ("3 × 4 ÷ 6 − 1", "1"),
        ("5²", "25"),
        ("sqrt(1764)", "42"),
        ("sqrt(0.25)", "0.5"),
        ("round(2.5)", "3"),
        ("round(-2.5)", "-3"),
        ("round(2.675, 2)", "2.68"),
        ("max(1, 2.5, 2)", "2.5"),
        ("avg(1, 2, 4) * 3", "7"),
        ("(-1) ** 999999999999", "-1"),
        ("0 ** 999999", "0"),
        ("10 ** 30", "1" + "0" * 30),
    ],
)
def test_an_expression_has_the_value_it_has_on_paper(expression: str, value: str) -> None:
    assert show(evaluate(expression)) == (value, True)


def test_a_result_that_is_rounded_says_so() -> None:
    assert show(evaluate("1 / 3")) == ("0.333333333333333", False)
    assert show(evaluate("2 ** 0.5")) == ("1.4142135623731", False)
    assert show(evaluate("sqrt(2) ** 2")) == ("2", False)
    assert show(evaluate("log(8, 2)")) == ("3", False)
    assert show(evaluate("MAX(1, 2) + Pi - pi")) == ("2", False)
    assert show(evaluate("1 / 3 * 3")) == ("1", True)


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("", "empty"),
        ("1 +", "ends too early"),
        ("(1", "ends too early"),
        ("1)", "')' at position 2"),
        ("2 3", "'3' at position 3"),
        ("1,234 + 1", "','"),
        ("1 / 0", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("5 % (1 - 1)", "divides by zero"),
        ("log(5, 1)", "divides by zero"),
        ("ln(0)", "no value"),
        ("sqrt(-1)", "no value"),
        ("asin(2)", "no value"),
        ("(-8) ** (1/3)", "no real power"),
        ("9 ** 9 ** 9", "too large"),
        ("exp(1000)", "too large"),
        ("10 ** 2000", "too large"),
        ("1e999999999", "beyond 400"),
        ("401!", "between 0 and 400"),
        ("2.5!", "whole number"),
        ("log(100)", "does not take 1"),
        ("x + 1", "no constant"),
        ("log10(10", "ends too early"),
        ("abs()", "')'"),
        ("of 3", "'of'"),
        ("open(1)", "no function"),
        ("__import__('os')", "is not arithmetic"),
        ("1 if 1 else 2", "not expected"),
        ("(1).real", "is not arithmetic"),
        ("'a' * 99", "is not arithmetic"),
        ("[1]", "is not arithmetic"),
        ("1" * (MAX_CHARS + 1), "characters"),
        ("(" * (MAX_DEPTH + 1), "nested"),
        ("-" * (MAX_DEPTH + 1) + "1", "nested"),
    ],
)
def test_what_cannot_be_calculated_is_explained(expression: str, part: str) -> None:
    with pytest.raises(ToolRetry, match=r".*") as caught:
        evaluate(expression)
    assert part in str(caught.value)


# Pairs of the same expression: as ours, and as Python over exact fractions.
Pair = tuple[str, str]
LEAVES = st.one_of(
    st.integers(0, 10**6).map(lambda n: (str(n), f"F({n})")),
    st.decimals(0, 1000, places=3).map(lambda d: (f"{d:f}", f"F('{d:f}')")),
)


def grown(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def binary(parts: tuple[Pair, str, Pair]) -> Pair:
        (ours, theirs), sign, (our_right, their_right) = parts
        return f"{ours} {sign} {our_right}", f"{theirs} {sign} {their_right}"

    def power(parts: tuple[Pair, int]) -> Pair:
        (ours, theirs), exponent = parts
        return f"({ours}) ** {exponent}", f"({theirs}) ** {exponent}"

    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//"]), inner).map(binary),
        inner.map(lambda pair: (f"({pair[0]})", f"({pair[1]})")),
        inner.map(lambda pair: (f"-{pair[0]}", f"-{pair[1]}")),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) % ({p[1][0]})", f"({p[0][1]}) % ({p[1][1]})")),
        st.tuples(inner, st.integers(0, 4)).map(power),
        st.tuples(inner, inner).map(lambda p: (f"max({p[0][0]}, {p[1][0]})", f"max({p[0][1]}, {p[1][1]})")),
        inner.map(lambda pair: (f"abs({pair[0]})", f"abs({pair[1]})")),
    )


@given(st.recursive(LEAVES, grown, max_leaves=8))
def test_values_are_those_of_python_over_fractions(pair: Pair) -> None:
    ours, theirs = pair
    try:
        expected = eval(theirs, {"F": Fraction, "max": max, "abs": abs})
    except ZeroDivisionError:
        with pytest.raises(ToolRetry):
            evaluate(ours)
        return
    try:
        value = evaluate(ours)
    except ToolRetry as refused:
        assert "too large" in str(refused) or "characters" in str(refused)  # noqa: PT017
        return
    assert value == expected


@given(st.floats(0.01, 50), st.sampled_from(["sin", "cos", "tan", "exp", "log10", "log2", "sqrt", "atan"]))
def test_functions_are_those_of_the_math_library(x: float, name: str) -> None:
    written = f"{x:.10f}"
    assert math.isclose(evaluate(f"{name}({written})"), getattr(math, name)(float(written)), rel_tol=1e-12)


@given(st.text(max_size=80) | st.text(alphabet="0123456789.+-*/%^()!,e xofpisqrt", max_size=80))
def test_no_text_does_anything_but_have_a_value_or_be_refused(text: str) -> None:
    try:
        shown, _ = show(evaluate(text))
    except ToolRetry:
        return
    assert len(shown) <= 1_300
