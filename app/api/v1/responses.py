"""`POST /v1/responses`: OpenAI's Responses over the same models, routes and graphs. Stateless: nothing is kept."""

from app.api.v1.completions import Completions
from app.api.v1.door import Asked, Streamed, Whole
from app.api.v1.responses_body import responses_body
from app.api.v1.responses_events import ResponseTeller
from app.api.v1.telling import tell


class Responses:
    """Answers requests for responses."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    async def __call__(self, asked: Asked) -> Whole | Streamed:
        """Raises BadRequest, Unsupported, and as chat completions do."""
        body = responses_body(asked.json, max_output_tokens=self._completions.max_output_tokens)
        teller = ResponseTeller(body.chat.model or "default", body.echo)
        return await tell(self._completions, asked, body.chat, teller)
