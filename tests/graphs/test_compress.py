"""Cutting passages to a budget: what fits is left alone, what is cut keeps its place in the document."""

from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st

from graphs.context import Limits
from graphs.prompts import PromptBook
from graphs.rag.compress import compress
from graphs.rag.nodes import prompt
from graphs.rag.wording import Wording
from graphs.types import Passage

TEXT = (
    "The harbour was built in 1890. Ships of every size call there. Tugs wait inside the mole. "
    "The pilot boards at the outer buoy. A licence is needed for that. Rain is frequent in winter."
)


def passage(text: str = TEXT, *, start: int = 100, name: str = "a") -> Passage:
    return Passage(f"{name}-0", name, "Port", text, start, start + len(text), 0.9, "notes")


def cost(found: Passage) -> int:
    return len(found.title.split()) + len(found.text.split()) + 2


def test_passages_that_fit_are_left_alone() -> None:
    found = (passage(), passage("Short.", name="b"))
    assert compress(found, "pilot", budget_tokens=1_000, cost=cost) == found


def test_the_sentence_that_answers_is_kept_and_keeps_its_place() -> None:
    document = " " * 100 + TEXT
    pieces = compress([passage()], "Where does the pilot board?", budget_tokens=12, cost=cost)
    assert [piece.text for piece in pieces] == ["The pilot boards at the outer buoy."]
    assert document[pieces[0].start : pieces[0].end] == pieces[0].text
    assert pieces[0].chunk_id == "a-0"


def test_sentences_side_by_side_stay_one_piece() -> None:
    (piece,) = compress([passage()], "Where does the pilot board?", budget_tokens=24, cost=cost)
    assert "The pilot boards at the outer buoy." in piece.text
    assert piece.text.count(".") > 1
    assert piece.text in TEXT


def test_every_passage_can_give_a_sentence_where_whole_ones_would_crowd_each_other_out() -> None:
    other = passage("Low tide is at noon. The pilot comes from the south. Fish is sold on the quay.", name="b")
    pieces = compress([passage(), other], "pilot", budget_tokens=22, cost=cost)
    assert {piece.document_id for piece in pieces} == {"a", "b"}


def test_an_unsegmented_script_is_cut_at_its_full_stops() -> None:
    text = "港口建于一八九〇年。引水员在外浮标登船。冬季多雨。"
    pieces = compress([passage(text)], "引水员在哪里登船", budget_tokens=14, cost=lambda found: len(found.text))
    assert [piece.text for piece in pieces] == ["引水员在外浮标登船。"]


words = st.sampled_from(["pilot", "harbour", "tug.", "Buoy", "rain.", "It", "winter!", "\n\n", "- item", "港。"])
texts = st.lists(words, max_size=30).map(" ".join)


@example(["", "pilot " * 7 + "\n\n - item", "pilot " * 12 + "tug. 港。 pilot - item"], 33)  # a dash between sentences
@given(st.lists(texts, max_size=4), st.integers(0, 60))
def test_the_budget_holds_and_no_character_is_invented(found: list[str], budget: int) -> None:
    passages = [passage(text, start=10 * place, name=str(place)) for place, text in enumerate(found)]
    pieces = compress(passages, "pilot buoy", budget_tokens=budget, cost=cost)
    assert sum(map(cost, pieces)) <= max(budget, 0)
    for piece in pieces:
        whole = passages[int(piece.document_id)]
        assert whole.text[piece.start - whole.start : piece.end - whole.start] == piece.text


async def test_a_short_window_gets_sentences_of_every_passage_and_never_more_than_it_takes() -> None:
    filler = " ".join(f"Berth {number} is for coasters of the northern line." for number in range(40))
    found = tuple(passage(f"{filler} The pilot boards at buoy {name}.", name=name) for name in "abc")
    gateway = SimpleNamespace(
        describe=lambda *_: SimpleNamespace(context_tokens=600, max_output_tokens=200),
        count_tokens=lambda text, *_: len(text.split()),
    )
    context = SimpleNamespace(
        gateway=gateway, prompts=PromptBook.packaged(), limits=Limits(answer_tokens=100), model=None
    )
    question = "Where does the pilot board?"
    state = {"question": question, "wording": Wording(question), "history": (), "passages": found}
    rendered = (await prompt(state, SimpleNamespace(context=context)))["rendered"]  # type: ignore[arg-type]
    for piece, whole in zip(rendered.passages[-3:], found, strict=True):
        assert piece.text.endswith(f"The pilot boards at buoy {whole.document_id}.")
        assert whole.text[piece.start - whole.start : piece.end - whole.start] == piece.text
    assert sum(len(message.content.split()) for message in rendered.messages) <= 500
