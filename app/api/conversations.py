"""A user's conversations."""

from fastapi import APIRouter, Response

from app.api.body import StrictRoute
from app.api.deps import Bench, Chatter, Cursor, Limit
from app.api.views import ConversationDetail, ConversationOut, ListOut, MessageOut, listed

router = APIRouter(prefix="/api/ai/conversations", tags=["conversations"], route_class=StrictRoute)


@router.get("", summary="List conversations", response_model=ListOut[ConversationOut])
async def list_conversations(
    bench: Bench, principal: Chatter, limit: Limit, cursor: Cursor = None
) -> ListOut[ConversationOut]:
    """The caller's own, newest first."""
    page = await bench.store.conversations.list(principal.tenant_id, principal.user_id, limit, cursor)
    return listed(page, ConversationOut.of)


@router.get("/{conversation_id}", summary="Read a conversation", response_model=ConversationDetail)
async def read_conversation(conversation_id: str, bench: Bench, principal: Chatter) -> ConversationDetail:
    """With its last 200 messages, oldest first."""
    tenant, user = principal.tenant_id, principal.user_id
    record = await bench.store.conversations.get(conversation_id, tenant, user)
    messages = await bench.store.conversations.messages(conversation_id, tenant, user)
    return ConversationDetail(
        conversation_id=record.conversation_id,
        title=record.title,
        created_at=record.created_at,
        messages=[MessageOut.of(message) for message in messages],
    )


@router.delete("/{conversation_id}", summary="Delete a conversation", status_code=204, response_class=Response)
async def delete_conversation(conversation_id: str, bench: Bench, principal: Chatter) -> None:
    """Its messages, the contents of its runs, and the tenant's kept answers go with it."""
    await bench.runner.erase(principal, conversation_id)
    await bench.gateway.forget(principal.tenant_id)
