"""What one run may use, over its parts."""

from app.services.gateway.meter import Caps


def test_r14_a_run_that_goes_on_may_use_what_its_first_part_left() -> None:
    assert Caps(100, 50).left(30, 60) == Caps(70, 0)
    assert Caps().left(30, 60) == Caps()
