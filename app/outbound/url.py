"""The one reader of URLs: what it makes of a URL is what is checked and what is connected to.

Whatever another reader might understand differently (backslashes, spaces, numbers that some take for an address,
credentials before an @) is no URL here.
"""

import re
from base64 import b64encode
from typing import Final

from yarl import URL

from app.outbound.errors import UrlInvalid

MAX_URL_CHARS: Final = 8_192
_ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")  # WHATWG URL, "ends in a number"
_IPV4: Final = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")


def read(text: str, base: URL | None = None) -> URL:
    """The URL, which may be relative where there is a base, without its fragment.

    Raises UrlInvalid, whose message repeats nothing of it.
    """
    url = _parsed(text)
    url = url if base is None else base.join(url)
    host = url.raw_host or ""
    if url.scheme not in {"http", "https"} or not host or url.port in {None, 0}:
        raise UrlInvalid("the URL must begin with http:// or https:// and name a host", field="url")
    if url.raw_user is not None or url.raw_password is not None:
        raise UrlInvalid("the URL must not hold a user name or a password", field="url")
    if "%" in host or (_ENDS_IN_NUMBER.fullmatch(host) and not _IPV4.fullmatch(host)):
        raise UrlInvalid("the URL's host is neither a name nor an address in its usual form", field="url")
    return url.with_fragment(None)


def without_credentials(text: str) -> tuple[str, dict[str, str]]:
    """A URL without its user name and password, and the header that says the same. Raises UrlInvalid."""
    url = _parsed(text)
    if url.raw_user is None and url.raw_password is None:
        return text, {}
    named = f"{url.user or ''}:{url.password or ''}".encode()
    return str(url.with_user(None)), {"Authorization": "Basic " + b64encode(named).decode()}


def _parsed(text: str) -> URL:
    if len(text) > MAX_URL_CHARS:
        raise UrlInvalid(f"the URL is longer than {MAX_URL_CHARS} characters", field="url")
    if not text.isprintable() or " " in text or "\\" in text:
        raise UrlInvalid("the URL has a space, a backslash or a character that cannot be printed", field="url")
    try:
        return URL(text)
    except ValueError as error:
        raise UrlInvalid("the URL cannot be read", field="url") from error


def host_name(host: str) -> str:
    """A host as URLs hold it: lower case, international names in their ASCII form, no dot at its end."""
    try:
        return (URL.build(scheme="http", host=host).raw_host or "").rstrip(".")
    except ValueError as error:
        raise UrlInvalid("an allowed host is neither a name nor an address", field="hosts") from error
