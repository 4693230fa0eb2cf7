from decimal import Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.price import configured, known, listed, usd_to_micros
from app.config.schema import ModelConfig, ProviderConfig
from graphs.types import Usage

TOKENS = st.integers(0, 10_000_000)
USD = st.decimals(0, 500, places=6, allow_nan=False)


def model(input_usd: Decimal, output_usd: Decimal, **more: Decimal) -> ModelConfig:
    return ModelConfig(provider="p", model="m", input_usd_per_mtok=input_usd, output_usd_per_mtok=output_usd, **more)  # type: ignore[arg-type]


@given(TOKENS, TOKENS, USD, USD)
def test_a_cost_is_the_exact_sum(read: int, wrote: int, input_usd: Decimal, output_usd: Decimal):
    price = configured(model(input_usd, output_usd))
    assert price is not None
    assert Decimal(price.cost_picos(Usage(read, wrote))) / 10**6 == read * input_usd + wrote * output_usd


@given(TOKENS, TOKENS, TOKENS, TOKENS, USD, USD, USD, USD)
def test_no_usage_costs_more_than_the_worst_case_of_its_tokens(
    read: int, wrote: int, cached: int, written: int, a: Decimal, b: Decimal, c: Decimal, d: Decimal
):
    price = configured(model(a, b, cached_input_usd_per_mtok=c, cache_write_usd_per_mtok=d))
    assert price is not None
    usage = Usage(read, wrote, cached_input_tokens=cached, cache_write_tokens=written)
    assert 0 <= price.cost_picos(usage) <= price.worst_micros(read, wrote) * 10**6


@given(*[st.integers(-1_000_000, 1_000_000)] * 4)
def test_r06_counts_that_cannot_be_cost_nothing_and_save_nothing(read: int, wrote: int, cached: int, written: int):
    price = configured(model(Decimal(2), Decimal(8), cached_input_usd_per_mtok=Decimal("0.5")))
    assert price is not None
    usage = Usage(read, wrote, cached_input_tokens=cached, cache_write_tokens=written)
    assert 0 <= price.cost_picos(usage) <= price.worst_micros(max(read, 0), max(wrote, 0)) * 10**6


def test_cached_tokens_are_billed_at_their_own_price():
    price = configured(model(Decimal(2), Decimal(8), cached_input_usd_per_mtok=Decimal("0.5")))
    assert price is not None
    assert price.cost_picos(Usage(1_000, 100, cached_input_tokens=600)) == (400 * 2 + 300 + 800) * 10**6


def test_the_public_list_knows_the_vendors_own_models_and_no_others():
    openai = ProviderConfig(kind="openai", base_url="https://api.openai.com/v1")
    found = listed("gpt-4o-mini", openai)
    assert found is not None
    assert (found.input_picos, found.output_picos, found.cached_input_picos) == (150_000, 600_000, 75_000)
    assert found.source.startswith("genai-prices:openai/")
    assert listed("gpt-4o-mini", ProviderConfig(kind="openai", base_url="http://127.0.0.1:9/v1")) is None
    assert listed("no-such-model", openai) is None
    assert listed("claude-sonnet-4-5", ProviderConfig(kind="anthropic")) is not None


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("claude-sonnet-4-5", ProviderConfig(kind="anthropic")),
        ("gpt-5.4", ProviderConfig(kind="openai", base_url="https://api.openai.com/v1")),
        ("gemini-2.5-pro", ProviderConfig(kind="openai", base_url="https://generativelanguage.googleapis.com/v1")),
    ],
)
@pytest.mark.parametrize("read", [1_000, 200_000, 200_001, 272_000, 272_001, 900_000])
def test_a_call_is_billed_by_the_tier_that_its_prompt_reaches_and_reserved_by_no_lower_one(
    model: str, provider: ProviderConfig, read: int
):
    price = listed(model, provider)
    assert price is not None
    usage = genai_prices.Usage(input_tokens=read, output_tokens=500, cache_read_tokens=100)
    theirs = genai_prices.calc_price(usage, model, provider_api_url=provider.base_url).total_price
    ours = price.cost_picos(Usage(read, 500, cached_input_tokens=100))
    assert Decimal(ours) / 10**12 == theirs
    assert -(-ours // 1_000_000) <= price.worst_micros(read, 500)
    assert price.cost_picos(Usage(read, 1)) - price.cost_picos(Usage(read, 0)) <= price.worst_output_picos(read)


def test_the_longest_prompts_are_dearer_and_short_ones_do_not_pay_for_them():
    price = listed("claude-sonnet-4-5", ProviderConfig(kind="anthropic"))
    assert price is not None
    assert price.cost_picos(Usage(1_000, 0)) == 3_000 * 10**6
    assert price.cost_picos(Usage(300_000, 0)) == 300_000 * 6 * 10**6
    assert price.worst_micros(1_000, 0) < 2 * 3_000


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("sonar-pro", "https://api.perplexity.ai"),  # each request costs beside its tokens
        ("sonar-deep-research", "https://api.perplexity.ai"),  # reasoning and citations have prices of their own
        ("text-embedding-3-small", "https://api.openai.com/v1"),  # its answers, were there any, have no price
    ],
)
def test_a_price_that_tokens_alone_do_not_tell_is_unknown(model: str, base_url: str):
    place = ProviderConfig(kind="openai", base_url=base_url)
    assert known(ModelConfig(provider="p", model=model), place) is None


def test_no_price_is_so_small_that_it_is_none():
    price = configured(model(Decimal("1e-9"), Decimal("2.0000001")))
    assert price is not None
    assert (price.input_picos, price.output_picos) == (1, 2_000_001)


def test_an_embedding_model_needs_no_price_of_answers():
    place = ProviderConfig(kind="openai", base_url="https://api.openai.com/v1")
    price = known(ModelConfig(provider="p", model="text-embedding-3-small", kind="embedding"), place)
    assert price is not None
    assert (price.input_picos, price.output_picos) == (20_000, 0)


def test_dollars_become_micro_dollars_without_a_float_between():
    assert usd_to_micros(Decimal("0.1") + Decimal("0.2")) == 300_000
