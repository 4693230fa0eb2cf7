"""A call as the ledger writes it down: what is known before it is made, and what is known after."""

from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from app.records import Bill, Charge
from app.services.quota.book import RECORDED, SETTLED

MAX_TEXT: Final = 512
MAX_WHOLE: Final = 1 << 62  # a BIGINT holds it twice

_recorded = itemgetter(*RECORDED)
_settled = itemgetter(*SETTLED)


def opening(
    call_id: str, charge: Charge, now: datetime, period: str, reserved_micros: int, process_id: str
) -> tuple[Any, ...]:
    """The values of a new row. Its cost, until it is settled, is what reading the prompt alone costs."""
    payer = charge.payer
    return _recorded(  # type: ignore[no-any-return]
        {
            "call_id": call_id,
            "request_id": _text(payer.request_id),
            "run_id": _text(payer.run_id),
            "tenant_id": payer.tenant_id,
            "user_id": payer.user_id,
            "key_id": payer.key_id,
            "feature": payer.feature,
            "task": charge.task,
            "route": charge.route,
            "model": charge.model,
            "model_version": "",
            "provider": charge.provider,
            "attempt": charge.attempt,
            "streamed": charge.streamed,
            "state": "open",
            "outcome": "",
            "error_code": "",
            "period": period,
            "day": f"{period}-{now.day:02d}",
            "reserved_micros": reserved_micros,
            "cost_micros": charge.prompt_micros,
            "price_source": charge.price_source,
            "input_tokens": charge.prompt_tokens,
            "output_tokens": 0,
            "cached_input_tokens": 0,
            "cache_write_tokens": 0,
            "estimated": True,
            "process_id": process_id,
            "started_us": int(now.timestamp() * 1e6),
            "latency_ms": 0.0,
            "first_token_ms": None,
        }
    )


def closing(bill: Bill) -> tuple[Any, ...]:
    """The values that end a row. Whatever a provider made of its usage, no amount is negative or too large to add."""
    usage = bill.usage
    return _settled(  # type: ignore[no-any-return]
        {
            "state": "settled",
            "outcome": bill.outcome,
            "error_code": bill.error_code,
            "model_version": _text(bill.model_version),
            "cost_micros": _whole(bill.cost_micros),
            "input_tokens": _whole(usage.input_tokens),
            "output_tokens": _whole(usage.output_tokens),
            "cached_input_tokens": _whole(usage.cached_input_tokens),
            "cache_write_tokens": _whole(usage.cache_write_tokens),
            "estimated": usage.estimated,
            "latency_ms": bill.latency_ms,
            "first_token_ms": bill.first_token_ms,
        }
    )


def _whole(amount: int) -> int:
    return amount if 0 <= amount < MAX_WHOLE else 0 if amount < 0 else MAX_WHOLE


def _text(text: str) -> str:
    """A text of others as any database holds it: PostgreSQL takes no NUL, no driver takes half of a surrogate pair."""
    if len(text) <= MAX_TEXT and text.isprintable():
        return text
    return text[:MAX_TEXT].encode("utf-8", "replace").decode().replace("\0", "")
