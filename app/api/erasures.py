"""Erasures: a person, or one conversation, taken out of everything."""

from typing import TYPE_CHECKING, Annotated, Self

from fastapi import APIRouter, Body

from app.api.body import StrictRoute
from app.api.deps import Bench, Owner
from app.api.schemas import Id
from app.records import Camel

if TYPE_CHECKING:
    from app.erasure import Receipt

router = APIRouter(prefix="/api/ai/erasures", tags=["erasures"], route_class=StrictRoute)


class ErasureIn(Camel):
    """The user of a tenant; with `conversationId` that conversation alone, and the user may be left out. `documents`
    takes what the person uploaded too."""

    tenant_id: Id
    user_id: Id = ""
    conversation_id: Id = ""
    documents: bool = False


class ErasureOut(Camel):
    """`removed` counts what went, by where it was; `stays` tells what is left elsewhere, and until when."""

    tenant_id: str
    user_id: str
    conversation_id: str
    removed: dict[str, int]
    stays: list[str]

    @classmethod
    def of(cls, receipt: "Receipt") -> Self:
        subject = receipt.subject
        return cls(
            tenant_id=subject.tenant_id,
            user_id=subject.user_id,
            conversation_id=subject.conversation_id,
            removed=dict(receipt.removed),
            stays=list(receipt.stays),
        )


@router.post("", summary="Erase a person or a conversation", response_model=ErasureOut)
async def erase(wanted: Annotated[ErasureIn, Body()], bench: Bench, principal: Owner) -> ErasureOut:
    """Everything is gone when this answers; asking again finds nothing. It cannot be taken back."""
    from app.services.store.erasure import Subject  # loaded by then; the socket does not wait for the store's library

    subject = Subject(wanted.tenant_id, wanted.user_id, wanted.conversation_id)
    return ErasureOut.of(await bench.erasure.erase(subject, principal.actor, documents=wanted.documents))
