"""Why a request was not sent, or its answer not taken. No message names an address, or the host of a redirect."""

from graphs.errors import Forbidden, Invalid, Missing, TooLarge, UpstreamError


class UrlInvalid(Invalid):
    """No absolute http or https URL, or one that readers of URLs understand differently."""

    code = "url_invalid"


class OutboundRefused(Forbidden):
    """The URL leads where requests of this use may not go.

    A name that does not exist is refused with the same words: else one could ask us which names the inside has.
    """

    code = "outbound_refused"


class AnswerTooLarge(TooLarge):
    """The answer, unpacked, is over its limit."""

    code = "outbound_too_large"


class AnswerUnexpected(Invalid):
    """The answer is of a type that this use does not take."""

    code = "outbound_content_type"


class RedirectsEndless(UpstreamError):
    """More redirects than are followed."""

    code = "outbound_redirects"


class EndpointGone(Missing):
    """The receiver wants no more events."""

    code = "webhook_gone"


class WebhookUndelivered(UpstreamError):
    """The receiver refused or missed a try; another may be taken."""

    code = "webhook_undelivered"
