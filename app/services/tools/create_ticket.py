"""Opens a ticket for people to work on."""

from typing import ClassVar, Protocol

from app.services.tools.tool import ToolCall, ToolOutput
from graphs.types import ToolSpec


class Ticket(Protocol):
    @property
    def ticket_id(self) -> str: ...


class TicketBook(Protocol):
    """Where tickets are written; the same key gives the same ticket again."""

    async def create(
        self, tenant_id: str, user_id: str, run_id: str, idempotency_key: str, title: str, body: str
    ) -> Ticket: ...


class CreateTicket:
    spec: ClassVar[ToolSpec] = ToolSpec(
        name="create_ticket",
        description="Create a ticket: report a problem, file an issue or request, ask the support team to act.",
        parameters={
            "type": "object",
            "properties": {
                "title": {
                    "type": "string",
                    "description": "One line that names the matter",
                    "minLength": 1,
                    "maxLength": 200,
                    "pattern": r"\S",
                },
                "body": {
                    "type": "string",
                    "description": "What happened or what is wanted, in full sentences",
                    "maxLength": 8_000,
                },
            },
            "required": ["title", "body"],
            "additionalProperties": False,
        },
        risk="write",
        trust="operator",
        own=True,
        examples=(
            (
                "Open a ticket: the coffee machine on floor 2 leaks.",
                {"title": "Coffee machine on floor 2 leaks", "body": "The coffee machine on floor 2 leaks."},
            ),
            (
                "Please report that the export job fails every night since Monday.",
                {"title": "Export job fails", "body": "The export job fails every night since Monday."},
            ),
        ),
    )
    examples: ClassVar[tuple[str, ...]] = (
        "Open a ticket: the printer on floor 3 is broken.",
        "Please file an issue about the login page.",
        "Report to support that the export job fails.",
        "Create a ticket for the expired certificate.",
        "Open a new ticket.",
        "File a bug report.",
        "Raise an issue with the support team.",
        "Submit a request for new equipment.",
        "I want to report a problem.",
        "Tell the support team that something is broken.",
    )

    def __init__(self, tickets: TicketBook) -> None:
        self._tickets = tickets

    async def run(self, call: ToolCall) -> ToolOutput:
        title, body = str(call.arguments["title"]).strip(), str(call.arguments["body"])
        ticket = await self._tickets.create(
            call.tenant_id, call.user_id, call.run_id, call.idempotency_key, title, body
        )
        return ToolOutput(f"Ticket {ticket.ticket_id} was created: {title}")
