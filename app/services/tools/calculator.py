"""The calculator."""

from typing import ClassVar

from app.services.tools.arithmetic import FUNCTIONS, MAX_CHARS, evaluate, show
from app.services.tools.tool import ToolCall, ToolOutput
from graphs.types import ToolSpec


class Calculator:
    """Exact where numbers allow it; says so where a result is rounded."""

    spec: ClassVar[ToolSpec] = ToolSpec(
        name="calculator",
        description="Calculate the value of an arithmetic expression: sums, products, percentages, powers, roots.",
        parameters={
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "Numbers and + - * / // % ^ ( ) as in 12.5 * (3 + 4) or 15% of 80; functions: "
                    + ", ".join(sorted(FUNCTIONS)),
                    "minLength": 1,
                    "maxLength": MAX_CHARS,
                }
            },
            "required": ["expression"],
            "additionalProperties": False,
        },
        trust="operator",
        own=True,
        examples=(
            ("What is 3 plus 4?", {"expression": "3 + 4"}),
            ("How much is 15% of 80?", {"expression": "80 * 15%"}),
            ("Compute 2.5*(7-1)", {"expression": "2.5*(7-1)"}),
        ),
    )
    examples: ClassVar[tuple[str, ...]] = (
        "What is 17 * 23?",
        "How much is 15% of 80?",
        "Add up 3.5, 4.25 and 10.",
        "What is the square root of 1764?",
        "Compute 2 to the power of 16.",
        "How much is 480 divided by 32?",
        "If one costs 12.50, how much do 8 cost in total?",
        "5/16 as a decimal",
    )

    async def run(self, call: ToolCall) -> ToolOutput:
        expression = str(call.arguments["expression"]).strip()
        text, exact = show(evaluate(expression))
        return ToolOutput(f"{expression} {'=' if exact else '≈'} {text}")
