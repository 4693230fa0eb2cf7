from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from app.config.price import Price
from app.services.gateway.rounding import Rounding
from app.services.gateway.scripted import Say
from graphs.types import Usage
from tests.services.gateway.chain import chain

TENTH = Price(100_000, 400_000, 100_000, 100_000, "config")  # 0.1 and 0.4 micro-dollars a token


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("mn"), st.integers(0, 5_000_000)), max_size=200))
def test_the_sum_of_a_tenants_costs_at_a_model_is_exact_to_half_a_micro_dollar(calls: list[tuple[str, str, int]]):
    rounding, exact, booked = Rounding(), dict[tuple[str, str], int](), dict[tuple[str, str], int]()
    for tenant, model, picos in calls:
        micros = rounding.micros(tenant, model, picos)
        assert picos // 1_000_000 <= micros <= -(-picos // 1_000_000)
        exact[tenant, model] = exact.get((tenant, model), 0) + picos
        booked[tenant, model] = booked.get((tenant, model), 0) + micros
    for key, picos in exact.items():
        assert abs(Decimal(picos) / 10**6 - booked[key]) <= Decimal("0.5")


async def test_a_hundred_calls_of_a_fraction_of_a_micro_dollar_cost_their_sum() -> None:
    route = chain({"a": [Say(("x",), usage=Usage(3, 0))] * 100}, prices={"a": TENTH})
    for _ in range(100):
        await route.ask()
    assert sum(bill.cost_micros for bill in route.books.bills) == 30


async def test_what_is_free_stays_free_whatever_was_rounded_before() -> None:
    rounding = Rounding()
    rounding.micros("acme", "a", 499_999)
    assert rounding.micros("acme", "a", 0) == 0
