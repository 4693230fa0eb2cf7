"""A budget as the console shows it: how full its bar is, a word for how it stands, and what comes next."""

from dataclasses import dataclass

from app.budgets import Budgeted
from app.config.schema import Degrade
from app.console.figures import portion


@dataclass(frozen=True, slots=True)
class Step:
    """A mark on the bar, at percent of the limit."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class BudgetView:
    """`word` and `pill` say the same, once for everybody and once in colour. Widths are percent of the bar."""

    kind: str
    name: str
    tenant: str
    spent_micros: int
    held_micros: int
    limit_micros: int
    share: float
    spent_width: float
    held_width: float
    steps: tuple[Step, ...]
    word: str
    pill: str
    next_step: str

    @classmethod
    def of(cls, budget: Budgeted) -> "BudgetView":
        spent = min(100 * budget.share, 100.0)
        held = min(100 * budget.held_micros / budget.limit_micros if budget.limit_micros else 0.0, 100 - spent)
        word, pill = _standing(budget)
        return cls(
            kind=budget.scope.kind,
            name=budget.scope.name or budget.scope.tenant_id,
            tenant=budget.scope.tenant_id,
            spent_micros=budget.spent_micros,
            held_micros=budget.held_micros,
            limit_micros=budget.limit_micros,
            share=budget.share,
            spent_width=round(spent, 2),
            held_width=round(held, 2),
            steps=_steps(budget),
            word=word,
            pill=pill,
            next_step=_next_step(budget),
        )


def _standing(budget: Budgeted) -> tuple[str, str]:
    if budget.share >= 1:
        return "Used up", "failed"
    passed = [share for share in budget.thresholds if share <= budget.share]
    if any(step.at <= budget.share for step in budget.steps):
        return "Degraded", "waiting"
    if passed:
        return f"Past {portion(passed[-1])}", "waiting"
    return "Within", "completed"


def _steps(budget: Budgeted) -> tuple[Step, ...]:
    marks = dict.fromkeys(budget.thresholds, "operators are told")
    marks |= {step.at: _does(step) for step in budget.steps}
    return tuple(
        Step(round(100 * share, 2), f"At {portion(share)}: {text}")
        for share, text in sorted(marks.items())
        if share < 1
    )


def _next_step(budget: Budgeted) -> str:
    """The step of the ladder that holds now, else the one that comes first; empty without a ladder."""
    now = next((step for step in reversed(budget.steps) if step.at <= budget.share), None)
    if now is not None:
        return f"Now: {_does(now)}"
    return f"From {portion(budget.steps[0].at)}: {_does(budget.steps[0])}" if budget.steps else ""


def _does(step: Degrade) -> str:
    parts = [
        f"calls take the route {step.route}" if step.route is not None else "",
        f"prompts have at most {step.context_tokens:,} tokens" if step.context_tokens is not None else "",
        "cached answers are given" if step.cached else "",
        {"extractive": "the extractive model answers", "refuse": "calls are refused"}.get(step.answer or "", ""),
    ]
    return ", ".join(part for part in parts if part)
