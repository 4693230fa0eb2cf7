"""When a model is left alone: as a machine with random histories, and case by case."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.services.breaker import PROBE_DEADLINE_S, Breaker, BreakerPolicy, Cause, State

POLICY = BreakerPolicy(window_s=30, min_calls=4, failure_rate=0.5, slow_call_s=1.0, slow_rate=0.8, open_s=5, probes=2)
QUICK, SLOW = 0.1, 2.0


def breaker(**policy: float) -> tuple[Breaker, list[tuple[State, Cause]]]:
    changes: list[tuple[State, Cause]] = []
    given = {"min_calls": 2, "open_s": 5.0, **policy}
    made = Breaker(
        BreakerPolicy(**given),  # type: ignore[arg-type]
        jitter=lambda: 0.0,
        on_change=lambda state, cause: changes.append((state, cause)),
    )
    return made, changes


def call(each: Breaker, now: float, *, fails: bool = False, took_s: float = QUICK) -> None:
    ticket = each.admit(now)
    assert ticket is not None
    if fails:
        each.fail(ticket, now)
    else:
        each.succeed(ticket, now, took_s)


class History(RuleBasedStateMachine):
    """Calls that begin and end in any order, time that passes, other processes that advise."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.out: list[tuple[int, float, int]] = []  # tickets not yet back: when, and after how many changes
        self.changes: list[tuple[State, Cause]] = []
        self.faults = 0  # failed and slow calls since it last closed
        self.advised = False
        self.breaker = Breaker(
            POLICY, jitter=lambda: 0.5, on_change=lambda state, cause: self.changes.append((state, cause))
        )

    @rule(seconds=st.floats(0, 90))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(calls=st.integers(1, 20))
    def begin(self, calls: int) -> None:
        for _ in range(calls):
            state, waits = self.breaker.state(self.now), self.breaker.wait_s(self.now)
            ticket = self.breaker.admit(self.now)
            if waits:
                assert ticket is None
            elif state == "closed":
                assert ticket == 0
            if ticket is not None:
                self.out.append((ticket, self.now, len(self.changes)))

    @precondition(lambda self: self.out)
    @rule(place=st.integers(0, 1_000), end=st.sampled_from(["ok", "slow", "fail", "cancel", "cool", "trip"]))
    def come_back(self, place: int, end: str) -> None:
        ticket, _, _ = self.out.pop(place % len(self.out))
        before = len(self.changes)
        match end:
            case "ok":
                self.breaker.succeed(ticket, self.now, QUICK)
            case "slow":
                self.faults += 1
                self.breaker.succeed(ticket, self.now, SLOW)
            case "fail":
                self.faults += 1
                self.breaker.fail(ticket, self.now)
            case "cancel":
                self.breaker.abandon(ticket)
            case "cool":
                self.breaker.cool_down(ticket, self.now, 3.0)
                assert self.breaker.admit(self.now) is None
            case _:
                self.breaker.trip(ticket, self.now)
                assert self.breaker.wait_s(self.now) >= POLICY.max_open_s
        fresh = self.changes[before:]
        if end in {"cancel", "cool"}:
            assert fresh == []  # neither a caller that left nor a server that is busy changes anything
        if ("open", "failures") in fresh or ("open", "slow_calls") in fresh:
            assert self.faults
        if ("closed", "recovered") in fresh:
            self.faults, self.advised = 0, False
            assert self.breaker.state(self.now) == "closed"

    @rule(open_s=st.floats(0, 500), cool_s=st.floats(0, 60))
    def be_advised(self, open_s: float, cool_s: float) -> None:
        before = len(self.changes)
        self.breaker.advise(self.now, open_s=open_s, cool_s=cool_s)
        self.advised = True
        assert self.changes[before:] == []  # advice is nobody's alarm, and is not passed on
        assert self.breaker.own_rest_s(self.now)[0] <= POLICY.max_open_s * 1.2

    @invariant()
    def no_more_probes_are_out_than_allowed(self) -> None:
        """Those from before the last opening or closing have lost their places, and so have those that are late."""
        current = [
            ticket
            for ticket, begun, changes in self.out
            if ticket and changes == len(self.changes) and self.now < begun + PROBE_DEADLINE_S
        ]
        assert len(current) <= POLICY.probes

    @invariant()
    def nobody_waits_longer_than_the_longest_pause(self) -> None:
        assert self.breaker.wait_s(self.now) <= max(POLICY.max_open_s * 1.2, 60)

    @invariant()
    def it_is_never_shut_for_good(self) -> None:
        """With no probe out, a call goes once the wait is over."""
        if not any(ticket for ticket, _, _ in self.out):
            later = self.now + self.breaker.wait_s(self.now)
            ticket = self.breaker.admit(later)
            assert ticket is not None
            self.breaker.abandon(ticket)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_it_opens_at_the_share_of_failures_and_not_before_there_are_enough_calls() -> None:
    each, changes = breaker(min_calls=4)
    for fails in (True, True, False):
        call(each, 0, fails=fails)
    assert each.state(0) == "closed"
    call(each, 0, fails=True)
    assert (each.state(0), changes) == ("open", [("open", "failures")])


def test_failures_older_than_the_window_are_forgotten() -> None:
    each, _ = breaker(min_calls=2, window_s=30)
    call(each, 0, fails=True)
    call(each, 31, fails=True)
    assert each.state(31) == "closed"
    call(each, 32, fails=True)
    assert each.state(32) == "open"


def test_each_opening_in_a_row_lasts_twice_as_long_up_to_the_longest() -> None:
    each, _ = breaker(min_calls=1, open_s=5, max_open_s=15)
    now, waits = 0.0, []
    for _ in range(4):
        call(each, now, fails=True)
        waits.append(each.wait_s(now))
        now += waits[-1]
    assert waits == [5, 10, 15, 15]


@pytest.mark.parametrize("probes", [1, 2, 3])
def test_u13_a_herd_of_twenty_sends_no_more_than_the_allowed_probes(probes: int) -> None:
    each, _ = breaker(min_calls=1, probes=probes)
    call(each, 0, fails=True)
    tickets = [each.admit(5) for _ in range(20)]
    assert sum(ticket is not None for ticket in tickets) == probes
    assert each.state(5) == "half_open"


def test_one_good_probe_closes_it_and_a_failed_one_opens_it_again() -> None:
    each, changes = breaker(min_calls=1)
    call(each, 0, fails=True)
    call(each, 5, fails=True)
    assert each.state(5) == "open"
    call(each, 15)
    assert (each.state(15), each.admit(15), changes[-1]) == ("closed", 0, ("closed", "recovered"))


def test_a_probe_that_comes_back_after_another_closed_it_is_one_call_among_others() -> None:
    each, _ = breaker(min_calls=2, probes=2)
    call(each, 0, fails=True)
    call(each, 0, fails=True)
    late, good = each.admit(5), each.admit(5)
    assert late is not None
    assert good is not None
    each.succeed(good, 5, QUICK)
    each.fail(late, 6)
    assert each.state(6) == "closed"


def test_a_probe_that_never_comes_back_loses_its_place() -> None:
    each, _ = breaker(min_calls=1)
    call(each, 0, fails=True)
    assert each.admit(5) is not None
    assert each.admit(5 + PROBE_DEADLINE_S - 1) is None
    assert each.admit(5 + PROBE_DEADLINE_S) is not None


def test_a_probe_that_is_slow_does_not_close_it() -> None:
    each, changes = breaker(min_calls=1, slow_call_s=1)
    call(each, 0, fails=True)
    call(each, 5, took_s=SLOW)
    assert (each.state(5), changes[-1]) == ("open", ("open", "slow_calls"))


def test_u14_a_cancelled_call_counts_for_nothing() -> None:
    each, changes = breaker(min_calls=1)
    for _ in range(100):
        ticket = each.admit(0)
        assert ticket == 0
        each.abandon(ticket)
    assert (each.state(0), changes) == ("closed", [])


def test_u16_slow_calls_alone_open_it() -> None:
    each, changes = breaker(min_calls=5, slow_call_s=1, slow_rate=0.8)
    for took_s in (QUICK, SLOW, SLOW, SLOW):
        call(each, 0, took_s=took_s)
    assert each.state(0) == "closed"
    call(each, 0, took_s=SLOW)
    assert (each.state(0), changes) == ("open", [("open", "slow_calls")])


def test_a_cool_down_is_no_failure_and_outlives_a_good_probe() -> None:
    each, changes = breaker(min_calls=1)
    call(each, 0, fails=True)
    probe = each.admit(5)
    assert probe is not None
    each.cool_down(0, 5, 10)  # a call from before the opening is told to wait
    each.succeed(probe, 6, QUICK)
    assert (each.state(6), each.admit(6), each.wait_s(6)) == ("closed", None, 9)
    assert each.admit(15) == 0
    assert [state for state, _ in changes] == ["open", "closed"]


def test_a_refused_credential_opens_it_for_as_long_as_it_goes_and_then_a_probe_may_try() -> None:
    each, changes = breaker(max_open_s=60)
    each.trip(0, 0)
    assert (each.wait_s(0), changes) == (60, [("open", "credential")])
    call(each, 60)
    assert each.state(60) == "closed"


def test_advice_is_followed_taken_back_and_never_passed_on() -> None:
    each, changes = breaker()
    each.advise(0, open_s=20, cool_s=0)
    assert (each.state(0), each.admit(0), each.own_rest_s(0)) == ("open", None, (0, 0))
    each.advise(1, open_s=0, cool_s=0)
    assert each.state(1) == "half_open"  # the other process has seen it well; this one makes its own probe
    call(each, 1)
    assert (each.state(1), changes) == ("closed", [("closed", "recovered")])


def test_advice_counts_less_than_a_success_of_ones_own() -> None:
    each, _ = breaker()
    call(each, 10)
    each.advise(10, open_s=20, cool_s=0)
    assert each.admit(10) == 0
    each.advise(10, open_s=0, cool_s=4)
    assert (each.admit(10), each.wait_s(10)) == (None, 4)  # a server that asked everybody to wait is left alone


def test_advice_is_bounded_by_the_longest_pause() -> None:
    each, _ = breaker(max_open_s=60)
    each.advise(0, open_s=1e9, cool_s=0)
    assert each.wait_s(0) == 60


def test_of_two_probes_the_one_that_failed_decides() -> None:
    each, _ = breaker(min_calls=1, probes=2)
    call(each, 0, fails=True)
    bad, good = each.admit(5), each.admit(5)
    assert bad is not None
    assert good is not None
    each.fail(bad, 5)
    each.succeed(good, 6, QUICK)
    assert each.state(6) == "open"


def test_failures_that_come_in_after_it_opened_do_not_lengthen_the_pause() -> None:
    each, changes = breaker(min_calls=2, open_s=5)
    tickets = [each.admit(0) for _ in range(10)]
    for ticket in tickets:
        assert ticket is not None
        each.fail(ticket, 1)
    assert (each.wait_s(1), len(changes)) == (5, 1)


def test_a_share_of_nothing_opens_it_at_the_first_failure_and_not_without_one() -> None:
    each, _ = breaker(min_calls=1, failure_rate=0.0, slow_call_s=1, slow_rate=1.0)
    call(each, 0)
    call(each, 0, took_s=SLOW)
    assert each.state(0) == "closed"
    call(each, 0, fails=True)
    assert each.state(0) == "open"
