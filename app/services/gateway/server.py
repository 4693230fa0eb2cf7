"""How a model server is reached, whatever its wire."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from app.config.schema import ProviderConfig
from app.services.gateway.link import Link, checked_url
from app.services.gateway.provider import Timeouts


@dataclass(frozen=True, slots=True)
class ModelServer:
    """`keep_alive_s` None opens a connection for each call. `named` is the setting that a wrong URL is blamed on."""

    base_url: str
    api_key: str = field(default="", repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    keep_alive_s: float | None = 15.0
    max_connections: int = 256
    named: str = "base_url"

    @classmethod
    def configured(cls, place: ProviderConfig, key: str, usual_url: str = "") -> Self:
        """As the configuration file has it; its kind's `usual_url` where the file names none."""
        timeouts = Timeouts.of_routes(place.connect_timeout_s)
        return cls(place.base_url or usual_url, key, timeouts, max_connections=place.max_connections)

    @property
    def url(self) -> str:
        """Without a slash at its end. Raises Invalid for one that is not of HTTP."""
        return checked_url(self.base_url, self.named)

    def link(self, name: str, url: str, headers: Mapping[str, str]) -> Link:
        """The connections of the model `name`, whose calls go to `url`."""
        return Link(
            name,
            url,
            headers,
            connect_s=self.timeouts.connect_s,
            keep_alive_s=self.keep_alive_s,
            max_connections=self.max_connections,
        )
