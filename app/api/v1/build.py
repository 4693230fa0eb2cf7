"""Puts `/v1` together over an open bench."""

from app.api.v1.completions import Completions
from app.api.v1.door import Door
from app.api.v1.embeddings import Embeddings
from app.api.v1.graphs import GraphCalls
from app.api.v1.listing import Models
from app.api.v1.messages import CountTokens, Messages
from app.api.v1.responses import Responses
from app.workbench import Workbench


def build_door(bench: Workbench) -> Door:
    limits = bench.config.limits
    graphs = GraphCalls(bench.runner)
    completions = Completions(
        bench.gateway,
        graphs,
        lambda tenant_id: bench.answers.guard(tenant_id).stream_filter,
        max_choices=limits.max_n,
        max_output_tokens=limits.max_output_tokens,
    )
    models = Models(bench.gateway, graphs.names)
    door = Door(
        bench.gateway.recovery.desk,
        {
            ("POST", "/v1/chat/completions"): completions,
            ("POST", "/v1/responses"): Responses(completions),
            ("POST", "/v1/messages"): Messages(completions),
            ("POST", "/v1/messages/count_tokens"): CountTokens(limits.max_output_tokens),
            ("POST", "/v1/embeddings"): Embeddings(bench.gateway),
        },
        {("GET", "/v1/models"): models, ("GET", "/v1/models/*"): models},
    )
    bench.watch.stops(door.stop)
    return door
