"""Collections' versions, golden questions and verdicts of the gate as JSON, and what comes in for them."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, StringConstraints

from app.api.schemas import MAX_QUERY_CHARS, DocumentId
from app.records import Camel
from app.services.store.text import clean

if TYPE_CHECKING:
    from app.services.retrieval.gate import Report, Thresholds
    from app.services.retrieval.golden import KeptGolden
    from app.services.retrieval.versions import Version

MAX_PASSAGE_CHARS = 4_000

Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(ge=0, le=1_000)]
Question = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARS),
    AfterValidator(clean),
]


class VersionOut(Camel):
    """A state that `asOf` of a search may name."""

    index_version: str
    rows: int
    size_bytes: int
    committed_at: datetime
    live: bool = Field(description="Whether it belongs to the build that answers now.")
    embedder: str = Field(description="The embedding model's name; empty for the embedded one.")
    chunker: str = Field(description="Chunker, tokens of a chunk, and how many come again; empty for the default.")

    @classmethod
    def of(cls, version: "Version") -> Self:
        return cls(
            index_version=version.label,
            rows=version.rows,
            size_bytes=version.size_bytes,
            committed_at=version.committed_at,
            live=version.live,
            embedder=version.recipe.embedder,
            chunker=version.recipe.chunker,
        )


class NowOut(Camel):
    """Which version answers after the change."""

    index_version: str


class OptimisedOut(NowOut):
    dropped: list[Literal["before", "waiting"]] = Field(
        description="Builds that went because they held erased text: the one to go back to, the one that waited."
    )


class GoldenIn(Camel):
    """A question and a document that answers it; with `passage`, only its chunks that hold that text count."""

    question: Question
    document_id: DocumentId
    passage: Annotated[str, StringConstraints(max_length=MAX_PASSAGE_CHARS), AfterValidator(clean)] = ""


class GoldenListIn(Camel):
    items: Annotated[list[GoldenIn], Field(min_length=1, max_length=1_000, fail_fast=True)]


class GoldenOut(Camel):
    golden_id: str
    question: str
    document_id: str
    passage: str

    @classmethod
    def of(cls, golden: "KeptGolden") -> Self:
        return cls(
            golden_id=golden.golden_id,
            question=golden.question,
            document_id=golden.document_id,
            passage=golden.passage,
        )


class PromoteIn(Camel):
    """What the new build must hold; what is left out is as `Thresholds` has it."""

    k: Annotated[StrictInt, Field(ge=1, le=50)] = 10
    min_questions: Annotated[StrictInt, Field(ge=0, le=1_000)] = 1
    min_recall: Share = 0.0
    min_ndcg: Share = 0.0
    max_recall_drop: Share = 0.02
    max_ndcg_drop: Share = 0.02
    max_latency_ratio: Ratio = 1.5
    latency_slack_ms: Annotated[float, Field(ge=0, le=60_000)] = 5.0
    max_size_ratio: Ratio = 2.0

    def thresholds(self) -> "Thresholds":
        from app.services.retrieval.gate import Thresholds  # loaded by then; the socket does not wait for it

        return Thresholds(**self.model_dump())


class MeasuresOut(Camel):
    recall: float
    ndcg: float
    latency_ms: float
    size_bytes: int


class ReportOut(Camel):
    """The gate's verdict. `live` is null where the live build could not be asked."""

    promoted: bool
    index_version: str = Field(description="The build that was judged.")
    questions: int
    candidate: MeasuresOut
    live: MeasuresOut | None
    failures: list[str]

    @classmethod
    def of(cls, report: "Report") -> Self:
        return cls(
            promoted=report.passed,
            index_version=report.version,
            questions=report.questions,
            candidate=MeasuresOut.model_validate(report.candidate, from_attributes=True),
            live=None if report.live is None else MeasuresOut.model_validate(report.live, from_attributes=True),
            failures=list(report.failures),
        )
