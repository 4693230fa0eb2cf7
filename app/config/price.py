"""What a model costs, in integers: configured, or from the public price list that genai-prices ships.

Costs are whole micro-dollars. Prices are pico-dollars a token (2 USD a million tokens = 2,000,000), so that a token's
price is exact and only a call's sum is rounded.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Any, Final

from app.config.schema import ModelConfig, ProviderConfig
from graphs.types import Usage

PICOS_PER_MICRO: Final = 1_000_000
_PICOS_PER_USD_PER_MTOK: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Pico-dollars a token. `source` says where it is from and is written into every ledger row."""

    input_picos: int
    output_picos: int
    cached_input_picos: int
    cache_write_picos: int
    source: str

    def cost_micros(self, usage: Usage) -> int:
        """What the call cost, rounded half up to a micro-dollar.

        Tokens read from and written into the provider's prompt cache are parts of the input tokens. A count below 0,
        which some adapters hand on, is none.
        """
        read = max(usage.input_tokens, 0)
        cached = min(max(usage.cached_input_tokens, 0), read)
        written = min(max(usage.cache_write_tokens, 0), read - cached)
        picos = (
            (read - cached - written) * self.input_picos
            + cached * self.cached_input_picos
            + written * self.cache_write_picos
            + max(usage.output_tokens, 0) * self.output_picos
        )
        return (picos + PICOS_PER_MICRO // 2) // PICOS_PER_MICRO

    def worst_micros(self, input_tokens: int, output_tokens: int) -> int:
        """What a call of at most so many tokens can cost, rounded up."""
        dearest = max(self.input_picos, self.cached_input_picos, self.cache_write_picos)
        return -(-(input_tokens * dearest + output_tokens * self.output_picos) // PICOS_PER_MICRO)


FREE: Final = Price(0, 0, 0, 0, "embedded")


UNPRICED: Final = "the price list does not know it: give input_usd_per_mtok and output_usd_per_mtok"


def known(model: ModelConfig, provider: ProviderConfig) -> Price | None:
    """What the model costs there. None: nobody knows, which is not zero."""
    if provider.kind in {"llamacpp", "extractive", "scripted", "onnx"} and model.input_usd_per_mtok is None:
        return FREE
    return configured(model) or listed(model.model, provider)


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


def listed(model: str, provider: ProviderConfig, at: datetime | None = None) -> Price | None:
    """The price in genai-prices' packaged list (no network) at a time, now by default; None for an unknown model.

    A tiered price gives its dearest tier, so that no bill is larger than its reservation.
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
    prices = found.get_prices(at or datetime.now(UTC))
    if prices.input_mtok is None:
        return None
    base = _dearest(prices.input_mtok, Decimal(0))
    return Price(
        _picos(base),
        _picos(_dearest(prices.output_mtok, Decimal(0))),
        _picos(_dearest(prices.cache_read_mtok, base)),
        _picos(_dearest(prices.cache_write_mtok, base)),
        f"genai-prices:{vendor.id}/{found.id}",
    )


def _dearest(price: Any, absent: Decimal) -> Decimal:
    """The highest tier of a price of the list, which is a Decimal, tiers, or None. A price of 0 is one."""
    if price is None:
        return absent
    if isinstance(price, Decimal):
        return price
    tiers: list[Decimal] = [price.base, *(tier.price for tier in price.tiers)]
    return max(tiers)


def _picos(usd_per_mtok: Decimal) -> int:
    return int((usd_per_mtok * _PICOS_PER_USD_PER_MTOK).to_integral_value(ROUND_HALF_UP))


def usd_to_micros(usd: Decimal) -> int:
    """Whole micro-dollars, rounded up."""
    return int((usd * 1_000_000).to_integral_value(ROUND_CEILING))
