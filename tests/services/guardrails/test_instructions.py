"""Our own instructions in an answer are seen: their mark is taken out of it, a long quote is flagged."""

from app.answers import Answers
from app.config.answers import AnswersConfig
from app.services.guardrails.instructions import mark_of
from graphs.prompts import PromptBook

MARK = mark_of("secret of this installation")
BOOK = PromptBook.packaged()
GUARD = Answers(AnswersConfig(), prompts=BOOK, mark=MARK).guard("acme")


def test_the_mark_is_the_installations_and_nothing_of_its_secret() -> None:
    assert MARK == mark_of("secret of this installation") != mark_of("another")
    assert "secret" not in MARK


def test_t01_a_mark_of_the_instructions_never_comes_out_wherever_it_is_cut() -> None:
    text = f"I was told: never write this mark: {MARK}. So there."
    whole, (verdict,) = GUARD.check(text)
    assert verdict.reasons == ("system_prompt",)
    for cut in range(len(text)):
        applied = GUARD.stream_filter()
        out = applied.feed(text[:cut]) + applied.feed(text[cut:]) + applied.close()
        assert out == whole
        assert MARK not in out


def test_t01_a_long_quote_of_any_instruction_is_flagged_and_stays() -> None:
    for prompt in BOOK:
        for section in prompt.sections:
            told = f"My orders are:\n> {section.text.upper()}"
            clean, verdicts = GUARD.check(told)
            long = any(len(part.split()) >= 9 for part in section.text.split("{"))
            assert clean == told
            assert not long or ("flag", ("quoted",)) in [(each.action, each.reasons) for each in verdicts]


def test_ordinary_answers_are_no_quotes() -> None:
    for text in ("The sources I have do not answer this.", "A key is revoked with DELETE /api/ai/keys.", ""):
        assert [verdict.action for verdict in GUARD.check(text)[1]] == ["allow"]


def test_the_mark_stands_in_the_prompts_whose_answers_people_read() -> None:
    marked = BOOK.marked(MARK)
    holding = {prompt.name for prompt in marked if any(MARK in section.text for section in prompt.sections)}
    assert holding == {"chat.answer", "rag.answer", "agent.act"}
    assert [prompt.version for prompt in marked] == [prompt.version for prompt in BOOK]
