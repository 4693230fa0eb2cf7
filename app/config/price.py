"""What a model costs, in integers: configured, or from the public price list that genai-prices ships.

Prices are pico-dollars a token (2 USD a million tokens = 2,000,000), so that a token's price and a call's cost are
exact; only what is booked is rounded, to whole micro-dollars (`services/gateway/rounding.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from app.config.schema import ModelConfig, ProviderConfig
from graphs.types import Usage

PICOS_PER_MICRO: Final = 1_000_000
_PICOS_PER_USD_PER_MTOK: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Pico-dollars a token. `source` says where it is from and is written into every ledger row.

    `longer` are the prices of calls that read more than so many tokens, the longest first: vendors price a call as a
    whole by its prompt.
    """

    input_picos: int
    output_picos: int
    cached_input_picos: int
    cache_write_picos: int
    source: str
    longer: "tuple[tuple[int, Price], ...]" = ()

    def cost_picos(self, usage: Usage) -> int:
        """What the call cost, exactly.

        Tokens read from and written into the provider's prompt cache are parts of the input tokens. A count below 0,
        which some adapters hand on, is none.
        """
        read = max(usage.input_tokens, 0)
        cached = min(max(usage.cached_input_tokens, 0), read)
        written = min(max(usage.cache_write_tokens, 0), read - cached)
        price = next((price for above, price in self.longer if read > above), self)
        return (
            (read - cached - written) * price.input_picos
            + cached * price.cached_input_picos
            + written * price.cache_write_picos
            + max(usage.output_tokens, 0) * price.output_picos
        )

    def worst_micros(self, input_tokens: int, output_tokens: int) -> int:
        """What a call of at most so many tokens can cost, rounded up."""
        prices = self._possible(input_tokens)
        dearest = max(max(one.input_picos, one.cached_input_picos, one.cache_write_picos) for one in prices)
        output_picos = max(one.output_picos for one in prices)
        return -(-(input_tokens * dearest + output_tokens * output_picos) // PICOS_PER_MICRO)

    def worst_output_picos(self, input_tokens: int) -> int:
        """What a token of the answer can cost at most after a prompt of at most so many tokens."""
        return max(price.output_picos for price in self._possible(input_tokens))

    def _possible(self, input_tokens: int) -> "tuple[Price, ...]":
        return (self, *(price for above, price in self.longer if input_tokens > above))


FREE: Final = Price(0, 0, 0, 0, "embedded")


UNPRICED: Final = "the price list has no price by tokens for it: give input_usd_per_mtok and output_usd_per_mtok"

# What a call is billed for beside its tokens, or for some of them at another price. The list's prices of audio, images
# and searches are not among them: a call that asks for none of these is billed by its tokens.
_BESIDE_TOKENS: Final = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")


def known(model: ModelConfig, provider: ProviderConfig) -> Price | None:
    """What the model costs there. None: nobody knows, which is not zero."""
    if provider.kind in {"llamacpp", "extractive", "scripted", "onnx"} and model.input_usd_per_mtok is None:
        return FREE
    return configured(model) or listed(model.model, provider, answers=model.kind == "chat")


def configured(model: ModelConfig) -> Price | None:
    """The price that the file gives, None where it is silent. An embedding model has no output price."""
    if model.input_usd_per_mtok is None:
        return None
    cached, written = model.cached_input_usd_per_mtok, model.cache_write_usd_per_mtok
    return Price(
        _picos(model.input_usd_per_mtok),
        _picos(model.output_usd_per_mtok or Decimal(0)),
        _picos(model.input_usd_per_mtok if cached is None else cached),
        _picos(model.input_usd_per_mtok if written is None else written),
        "config",
    )


def listed(model: str, provider: ProviderConfig, at: datetime | None = None, *, answers: bool = True) -> Price | None:
    """The price in genai-prices' packaged list (no network) at a time, now by default.

    None for a model that it does not know or that is not billed by its tokens alone, and for one that `answers` whose
    answers have no price.
    """
    # Imported here: the list is megabytes of data that a configuration with prices never needs.
    from genai_prices import data_snapshot

    if provider.kind not in {"openai", "anthropic"}:
        return None
    try:
        vendor, found = data_snapshot.get_snapshot().find_provider_model(
            model,
            provider=None,
            provider_id="anthropic" if provider.kind == "anthropic" else None,
            provider_api_url=provider.base_url if provider.kind == "openai" else None,
        )
    except LookupError:
        return None
    prices = {
        unit: price for unit, price in vars(found.get_prices(at or datetime.now(UTC))).items() if price is not None
    }
    needed = {"input_mtok", "output_mtok"} if answers else {"input_mtok"}
    if not needed <= prices.keys() or not prices.keys().isdisjoint(_BESIDE_TOKENS):
        return None
    source = f"genai-prices:{vendor.id}/{found.id}"
    starts = {tier.start for price in prices.values() for tier in getattr(price, "tiers", ())}
    longer = tuple((start, _tier(prices, start, source)) for start in sorted(starts, reverse=True))
    return replace(_tier(prices, 0, source), longer=longer)


def _tier(prices: Mapping[str, Any], above: int, source: str) -> Price:
    """The list's prices by their units, for calls that read more tokens than `above`."""

    def picos(unit: str, absent: int) -> int:
        price = prices.get(unit)
        if price is None or isinstance(price, Decimal):
            return absent if price is None else _picos(price)
        reached = [tier for tier in price.tiers if tier.start <= above]
        return _picos(max(reached, key=lambda tier: tier.start).price if reached else price.base)

    read = picos("input_mtok", 0)
    return Price(read, picos("output_mtok", 0), picos("cache_read_mtok", read), picos("cache_write_mtok", read), source)


def _picos(usd_per_mtok: Decimal) -> int:
    """Rounded up: no price is so small that it is none."""
    return int((usd_per_mtok * _PICOS_PER_USD_PER_MTOK).to_integral_value(ROUND_CEILING))


def usd_to_micros(usd: Decimal) -> int:
    """Whole micro-dollars, rounded up."""
    return int((usd * 1_000_000).to_integral_value(ROUND_CEILING))
