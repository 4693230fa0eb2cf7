"""`POST /v1/messages`: Anthropic's Messages over the same models, routes and graphs."""

import orjson

from app.api.v1.calling import prompt_tokens_of
from app.api.v1.completions import Completions
from app.api.v1.door import Asked, Streamed, Whole
from app.api.v1.messages_body import messages_body
from app.api.v1.messages_events import MessageTeller
from app.api.v1.telling import tell


class Messages:
    """Answers requests for messages."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    async def __call__(self, asked: Asked) -> Whole | Streamed:
        """Raises BadRequest, Unsupported, and as chat completions do."""
        body = messages_body(asked.json, max_output_tokens=self._completions.max_output_tokens)
        asked.headers.append((b"request-id", asked.request_id.encode()))  # where Anthropic's client looks for it
        return await tell(self._completions, asked, body, MessageTeller(body.model or "", asked.request_id))


class CountTokens:
    """`POST /v1/messages/count_tokens`: how many tokens a prompt has at most; no model is asked."""

    def __init__(self, max_output_tokens: int) -> None:
        self._max_output_tokens = max_output_tokens

    async def __call__(self, asked: Asked) -> Whole:
        raw = asked.json if not isinstance(asked.json, dict) else {"max_tokens": 1, **asked.json}
        body = messages_body(raw, max_output_tokens=self._max_output_tokens)
        return Whole(orjson.dumps({"input_tokens": prompt_tokens_of(body)}))
