"""Chat completions through the real `openai` client, unmodified."""

import openai
from tests.api.v1.upstream import Upstream

HELLO = [{"role": "user", "content": "say Hello there, world"}]


def test_an_answer_comes_as_the_model_gave_it(client: openai.OpenAI, lab: Upstream) -> None:
    answer = client.chat.completions.create(model="big", messages=HELLO)
    assert answer.choices[0].message.content == "Hello there, world"
