import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.retrieval.fuse import fuse

COSINES = st.dictionaries(st.text(max_size=3), st.floats(-1, 1.0001), max_size=8)


@given(COSINES, st.data())
def test_scores_stay_in_the_unit_interval_and_fall(cosines: dict[str, float], data: st.DataObject) -> None:
    keys = data.draw(st.sets(st.sampled_from(sorted(cosines)))) if cosines else set()
    fused = fuse(cosines, {key: data.draw(st.floats(0, 100)) for key in keys})
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert {key for key, _ in fused} == set(cosines)


def test_nothing_in_gives_nothing_out() -> None:
    assert fuse({}, {}) == []


def test_a_shared_word_lifts_a_passage_above_one_of_equal_meaning() -> None:
    assert [key for key, _ in fuse({"a": 0.5, "b": 0.5}, {"b": 3.0})] == ["b", "a"]


@pytest.mark.parametrize(("weight", "first"), [(1.0, "meant"), (0.0, "worded")])
def test_the_weight_moves_between_the_legs(weight: float, first: str) -> None:
    fused = fuse({"meant": 0.9, "worded": 0.1}, {"meant": 1.0, "worded": 9.0}, dense_weight=weight)
    assert fused[0][0] == first
