"""What comes in over HTTP: closed and bounded, in camelCase. What goes out is in `views.py`."""

from typing import Annotated, Any, Literal
from unicodedata import normalize

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
)

from app.records import Camel, Mode, Scope, SearchWish
from app.services.retrieval.filters import parse_filter
from app.services.store.records import Rating
from app.services.store.text import clean
from graphs.errors import Invalid
from graphs.policy import LIMIT_VARIANTS, Fusion
from graphs.types import Decision

MAX_QUERY_CHARS = 8_000
MAX_COMMENT_CHARS = 4_000
MAX_RESULTS = 50
MAX_NEIGHBOURS = 3
MAX_HISTORY = 12
MAX_DOCUMENTS = 10_000
MAX_URLS = 100
MAX_METADATA = 32
MAX_METADATA_CHARS = 2_000


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters")
    return text


def _name(text: str) -> str:
    """One spelling for what looks the same; hidden and right-to-left signs are not printable."""
    return normalize("NFC", _printable(text))


def _scalar(value: Any) -> str | bool | int | float | None:
    """One check in place of a union, whose errors would name each branch."""
    if isinstance(value, str) and len(value) > MAX_METADATA_CHARS:
        raise ValueError(f"must have at most {MAX_METADATA_CHARS} characters")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("must fit into 64 bits")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError("must be text, a number, a boolean or null")


def _url(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _filter(where: dict[str, Any]) -> dict[str, Any]:
    """The JSON as it came, which the search parses again: it is what a run's record keeps."""
    try:
        parse_filter(where)
    except Invalid as error:
        raise ValueError(str(error)) from error
    return where


# The hard ceiling of a message; `max_message_chars` in the settings is the one that callers meet.
Message = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000_000), AfterValidator(clean)
]
# An id that was never given is 404 and not 422, so ids are only bounded here.
Id = Annotated[str, StringConstraints(max_length=512)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_name)]
Collection = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Url = Annotated[str, StringConstraints(min_length=1, max_length=8_192), AfterValidator(_printable)]
DocumentId = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_name)]
MetadataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
Scalar = Annotated[
    str | bool | int | float | None,
    PlainValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]
Metadata = Annotated[dict[MetadataKey, Scalar], Field(max_length=MAX_METADATA)]
Groups = Annotated[list[Name], Field(max_length=32)]
AllowGroups = Annotated[
    Groups | None, Field(description="The groups that may see it; [] is everybody. Left out, it stays as it was.")
]
Filter = Annotated[dict[str, Any], AfterValidator(_filter)]
Comment = Annotated[str, StringConstraints(max_length=MAX_COMMENT_CHARS)]


class RetrievalIn(Camel):
    """How passages are looked for; what is not said is as configured for the collection."""

    rewrite: Literal["auto", "words", "off"] | None = None
    variants: Annotated[StrictInt, Field(ge=0, le=LIMIT_VARIANTS)] | None = None
    fusion: Fusion | None = None
    rerank: Name | None = Field(default=None, description="none, maxsim, a re-rank model or a route of such.")

    @property
    def wish(self) -> SearchWish:
        return SearchWish(self.rewrite, self.variants, self.fusion, self.rerank)


class ChatIn(Camel):
    """A message to a graph. Without `conversationId` a new conversation begins."""

    message: Message
    mode: Mode = "chat"
    conversation_id: Id | None = None
    collection: Collection | None = None
    model: Name | None = None
    filter: Filter | None = None
    feature: Name = "api"
    retrieval: RetrievalIn = RetrievalIn()
    response_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema of the answer. One that does not fit fails with answer_not_valid."
    )
    stream: StrictBool = False


class AttachIn(Camel):
    """A run to take up again over a socket, behind its event `after`."""

    request_id: Id
    after: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)] = 0


class SearchIn(RetrievalIn):
    """`diversity` weighs against passages that say the same; `neighbours` brings the chunks beside each passage.

    `history` are the questions that the same person asked before, oldest first: a follow-up is searched as a question
    of its own.
    """

    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARS)]
    collection: Collection | None = None
    k: Annotated[StrictInt, Field(ge=1, le=MAX_RESULTS)] = 6
    filter: Filter | None = None
    history: Annotated[
        list[Annotated[str, StringConstraints(max_length=MAX_QUERY_CHARS)]], Field(max_length=MAX_HISTORY)
    ] = Field(default_factory=list)
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    neighbours: Annotated[StrictInt, Field(ge=0, le=MAX_NEIGHBOURS)] = 0
    explain: StrictBool = False
    as_of: Annotated[str, StringConstraints(max_length=128)] | None = Field(
        default=None, description="The `indexVersion` of an earlier answer; 410 where it is gone."
    )


class KeyIn(Camel):
    tenant_id: Name
    user_id: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=16)]
    groups: Annotated[list[Name], Field(max_length=256)] = Field(default=[], description="Whose documents it sees.")
    name: Annotated[str, StringConstraints(max_length=128), AfterValidator(_printable)] = ""
    expires_at: AwareDatetime | None = None


class KeyGroupsIn(Camel):
    groups: Annotated[list[Name], Field(max_length=256)]


class GroupsIn(Camel):
    """Whom a document is for; an empty list is everybody of the tenant."""

    allow_groups: Groups


class DocumentIn(Camel):
    id: DocumentId
    title: Annotated[str, StringConstraints(max_length=512)] = ""
    text: Annotated[str, AfterValidator(clean)]
    metadata: Metadata = Field(default_factory=dict)
    trust: Literal["tenant", "untrusted"] = Field(
        default="untrusted", description="tenant: nobody but a system of the tenant's could have put words into it."
    )
    allow_groups: AllowGroups = None


class DocumentsIn(Camel):
    collection: Collection
    documents: Annotated[list[DocumentIn], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]
    callback_url: Url | None = Field(default=None, description="Told when it is done, which a job then does.")


class UrlIn(Camel):
    """A document to fetch. Without an `id` it is named by the URL at which it was found in the end."""

    url: Url
    id: DocumentId | None = None
    title: Annotated[str, StringConstraints(max_length=512)] = ""
    metadata: Metadata = Field(default_factory=dict)
    allow_groups: AllowGroups = None


class UrlsIn(Camel):
    """A URL alone stands for an object with nothing else."""

    collection: Collection
    urls: Annotated[
        list[Annotated[UrlIn, BeforeValidator(_url, json_schema_input_type=str | UrlIn)]],
        Field(min_length=1, max_length=MAX_URLS, fail_fast=True),
    ]
    callback_url: Url | None = None


class PrefixIn(Camel):
    """All objects under a prefix of a bucket, `s3://bucket/prefix/`, each a document named by its address."""

    collection: Collection
    prefix: Url
    metadata: Metadata = Field(default_factory=dict)
    callback_url: Url | None = None


class UploadIn(Camel):
    """The fields of a multipart upload beside its `file`; `metadata` is a JSON object in a field."""

    collection: Collection
    id: DocumentId | None = None
    title: Annotated[str, StringConstraints(max_length=512)] = ""
    metadata: Metadata = Field(default_factory=dict)
    allow_groups: AllowGroups = None
    callback_url: Url | None = None


class DecisionIn(Camel):
    """`arguments` replaces what stands and has to fit the tool's schema. With the `binding` that was read, a decision
    on anything else is refused."""

    decision: Decision
    arguments: dict[str, Any] | None = None
    comment: Comment = ""
    binding: Annotated[str, StringConstraints(max_length=128)] | None = None


class EscalationIn(Camel):
    """`take` says that the caller sees to it, `close` that it is done."""

    step: Literal["take", "close"]
    comment: Comment = ""


class FeedbackIn(Camel):
    request_id: Id
    rating: Rating
    comment: Comment = ""


class SwitchIn(Camel):
    """Why something is switched off; told to those who are refused."""

    reason: Annotated[str, StringConstraints(max_length=1_000), AfterValidator(_printable)] = ""
