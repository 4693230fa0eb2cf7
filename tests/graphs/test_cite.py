"""Citations are what measured support says, not what a model wrote."""

from graphs.cite import attach, quote_span, stretch
from graphs.types import Passage

TEXT = "The port is 8000. Set PORT to change it."
PASSAGE = Passage("c1", "d1", "Start", TEXT, 100, 100 + len(TEXT), 0.9, "handbook", "Run")
OTHER = Passage("c2", "d2", "Other", "Nothing here.", 0, 13, 0.5, "handbook")


def test_a_citation_encloses_the_quote_in_the_document() -> None:
    answer = "Set PORT to change it."
    sentences, citations = attach(answer, [(0, len(answer))], [PASSAGE, OTHER], [[1.0, 0.1]], threshold=0.5)
    (citation,) = citations
    assert TEXT[citation.start - 100 : citation.end - 100] == citation.quote == answer
    assert sentences[0].citations == (1,)


def test_an_unsupported_sentence_cites_nothing() -> None:
    sentences, citations = attach("It is blue.", [(0, 11)], [PASSAGE, OTHER], [[0.49, 0.3]], threshold=0.5)
    assert citations == ()
    assert not sentences[0].supported


def test_citations_are_numbered_by_first_use_and_shared_between_sentences() -> None:
    answer = "A. B. C."
    spans = [(0, 2), (3, 5), (6, 8)]
    scores = [[0.1, 0.9], [0.8, 0.1], [0.1, 0.95]]
    sentences, citations = attach(answer, spans, [PASSAGE, OTHER], scores, threshold=0.5)
    assert [sentence.citations for sentence in sentences] == [(1,), (2,), (1,)]
    assert [(citation.number, citation.chunk_id, citation.score) for citation in citations] == [
        (1, "c2", 0.95),
        (2, "c1", 0.8),
    ]


def test_a_second_passage_is_cited_only_if_it_supports_nearly_as_well() -> None:
    near, _ = attach("A.", [(0, 2)], [PASSAGE, OTHER], [[0.9, 0.85]], threshold=0.5)
    far, _ = attach("A.", [(0, 2)], [PASSAGE, OTHER], [[0.9, 0.6]], threshold=0.5)
    assert (len(near[0].citations), len(far[0].citations)) == (2, 1)


def test_no_passages_and_no_sentences_give_nothing() -> None:
    assert attach("", [], [PASSAGE], [], threshold=0.5) == ((), ())
    sentences, citations = attach("A.", [(0, 2)], [], [[]], threshold=0.5)
    assert (sentences[0].score, citations) == (0.0, ())


def test_a_paraphrase_quotes_the_sentence_that_shares_most_words() -> None:
    start, end = quote_span(TEXT, "the port is always 8000.")
    assert TEXT[start:end] == "The port is 8000."


def test_a_lead_in_and_its_list_are_one_quote() -> None:
    text = "The kinds are:\n\n- one;\n- two.\n\nNothing else. Kinds differ."
    quoted = [(1.0, quote_span(text, part)) for part in ("two.", "The kinds are:", "one;", "Kinds differ.")]
    start, end = stretch(text, quoted)
    assert text[start:end] == "The kinds are:\n\n- one;\n- two."


def test_of_quotes_that_lie_apart_the_best_supported_is_shown_then_the_longest() -> None:
    text = "Short one. In between. A longer one of them."
    first, last = quote_span(text, "Short one."), quote_span(text, "A longer one of them.")
    assert stretch(text, [(0.9, first), (0.8, last)]) == first
    assert stretch(text, [(1.0, first), (1.0, last)]) == last
