"""What a person can do about a run that did not answer, by the kind and code of its failure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.records import AnswerCard
from graphs.errors import PilothouseError


@dataclass(frozen=True, slots=True)
class Advice:
    """`tone` picks the colour: quiet, warn, bad. `detail` is the failure's own message."""

    title: str
    todo: str
    tone: str
    detail: str = ""
    code: str = ""


_BY_CODE: Final[Mapping[str, tuple[str, str, str]]] = {
    "cancelled": ("Stopped", "The run was stopped before it ended. Ask again whenever you like.", "quiet"),
    "interrupted": ("Interrupted", "The server stopped while this run was in flight. Ask again.", "warn"),
    "graph_changed": (
        "The agent was changed while this waited",
        "Nothing of it was done. Ask again: the new version takes it up from the start.",
        "warn",
    ),
    "too_large": ("Too long", "Shorten the message and send it again.", "warn"),
    "prompt_too_long": ("Too long for the model", "Shorten the message, or start a new conversation.", "warn"),
    "upstream_timeout": (
        "The model took too long",
        "Ask again, ask for something shorter, or choose another model.",
        "bad",
    ),
    "upstream_broke_off": (
        "The answer broke off",
        "What you see is only its first part. Ask again, or choose another model.",
        "bad",
    ),
    "without_model": (
        "No model could answer",
        "This is a safe answer in its place, and a person has been told. Try again in a moment.",
        "warn",
    ),
    "continued": (
        "The answer broke off, and another model went on",
        "The card names it. Read the place where they meet with care, or ask again.",
        "warn",
    ),
    "version_gone": (
        "This version is gone (410)",
        "It held text that was deleted since, or it was cleaned up an hour after the next one came. Choose another "
        "version, or none for the one that answers now.",
        "warn",
    ),
    "upstream_rate_limited": ("The model is busy", "Its provider asks to wait. Try again in a minute.", "warn"),
    "upstream_rejected": (
        "The provider refused the call",
        "Asking again cannot help. Check the model's name and key in the settings, or choose another model.",
        "bad",
    ),
    "upstream_unauthorized": (
        "The provider does not take the key",
        "Whoever runs this server has to see to the key or the account behind it. Until then, choose another model.",
        "bad",
    ),
    "upstream_not_found": (
        "The provider does not know the model",
        "Whoever runs this server has to see to its name in the settings. Until then, choose another model.",
        "bad",
    ),
    "upstream_too_long": ("Too long for the model", "Shorten the message, or choose a model with more room.", "warn"),
    "unauthenticated": ("Signed out", "Open the console link again to sign in.", "warn"),
}
_BY_KIND: Final[Mapping[str, tuple[str, str, str]]] = {
    "invalid": ("That cannot be run as it is", "Change the message or its settings as described below.", "warn"),
    "denied": ("Not allowed", "Your key lacks the right for this. Ask whoever runs this server.", "warn"),
    "missing": ("Not found", "Choose another collection, version or model; this one may be gone.", "warn"),
    "conflict": ("Already settled", "Someone else was first. Reload to see how it stands.", "warn"),
    "exhausted": ("Limit reached", "Wait for the limit to renew, or ask for a higher one.", "warn"),
    "upstream": (
        "The model server failed",
        "Try again, or choose another model. The runbook “Provider outage” in the handbook says more.",
        "bad",
    ),
    "internal": (
        "Something broke on our side",
        "Try again. If it stays, give the request id to whoever runs this server: the log has the cause under it.",
        "bad",
    ),
}


def advice(card: AnswerCard) -> Advice | None:
    """None for a run that went well; a refusal of the sources is a good end, not a failure."""
    if card.status == "blocked":
        reasons = ", ".join(
            reason for verdict in card.verdicts if verdict.action == "block" for reason in verdict.reasons
        )
        return Advice("Blocked by a guard", "Rephrase the message and leave out what the guard named.", "warn", reasons)
    if card.error is not None:
        return _advise(card.error.kind, card.error.code, card.error.message)
    if card.status == "cancelled":
        return _advise("conflict", "cancelled", "")
    if card.without_model:
        return _advise("upstream", "without_model", "")
    if card.continued_by:
        return _advise("upstream", "continued", ", ".join(card.continued_by))
    return None


def advice_on(error: PilothouseError) -> Advice:
    """For a failure that came before there was a run, or beside one."""
    return _advise(error.kind, error.code, error.message)


def _advise(kind: str, code: str, message: str) -> Advice:
    title, todo, tone = _BY_CODE.get(code) or _BY_KIND.get(kind) or _BY_KIND["internal"]
    return Advice(title, todo, tone, "" if code == "cancelled" else message, code)
