import pytest

from app.config.answers import AnswersConfig, load_rule
from app.services.guardrails.abuse import no_abuse
from graphs.rules import Answered


def kinds(answer: str) -> str | None:
    return no_abuse.fails(Answered(answer, "How are you?"))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("You are a complete idiot.", "insult"),
        ("Honestly, you moron, read it.", "insult"),
        ("Just shut up and go.", "dismissal"),
        ("I will hurt you.", "threat"),
        ("You should end it all. Kill yourself.", "self-harm"),
    ],
)
def test_what_is_said_to_the_reader_is_seen(answer: str, found: str) -> None:
    assert kinds(answer) == found


@pytest.mark.parametrize(
    "answer",
    [
        "Shut the server down, then start it up.",
        "The process was killed; kill it yourself with SIGTERM.",
        "You are right: the index is useless without it.",
        "A garbage collection pauses the run.",
        "I will find you the page.",
    ],
)
def test_what_engineers_say_is_not(answer: str) -> None:
    assert kinds(answer) is None


def test_it_is_a_rule_that_nobody_gets_unasked() -> None:
    assert load_rule("app.services.guardrails.abuse:no_abuse") is no_abuse
    assert AnswersConfig().rules == ()
