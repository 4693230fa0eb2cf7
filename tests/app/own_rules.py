"""Rules as an operator writes them, for tests that name them in a configuration."""

import time

from graphs.rules import Answered, rule


@rule("no_discount_promises")
def no_discount_promises(asked: Answered) -> str | None:
    return "promises a discount" if "% off" in asked.answer else None


@rule("stays_with_the_sources")
def stays_with_the_sources(asked: Answered) -> str | None:
    return None if not asked.passages or asked.question else "answers nothing"


@rule("broken")
def broken(asked: Answered) -> str | None:
    raise ZeroDivisionError


@rule("endless")
def endless(asked: Answered) -> str | None:
    time.sleep(1.5)
    return None


not_a_rule = len
