"""Settings, read once at a door from the environment (prefix PILOTHOUSE_) into one frozen value.

Services never see this class; the workbench hands them plain values. `Settings.offline()` needs no key and no
network and is where tests, CI and notebooks start.
"""

import logging
import os
from decimal import Decimal
from pathlib import Path

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# Libraries that would phone home unless told not to; set before any of them is imported.
QUIET_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # prices that it would fetch from GitHub for each model of a trace
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime reports to Microsoft from native code
    "DO_NOT_TRACK": "true",
    "RAGAS_DO_NOT_TRACK": "true",
    "LANGGRAPH_STRICT_MSGPACK": "true",
    "LANCE_LOG": "error",
}


def quiet_libraries() -> None:
    """Turn telemetry of our libraries off for this process and its children; values set by the user stay."""
    # LanceDB makes an event loop in every forked child, before it becomes another program, and a new loop says a debug
    # line: to a stream whose lock another thread may have held at the fork. Then the child never begins, and uvloop,
    # which waits for that, stands still.
    logging.getLogger("asyncio").setLevel(logging.INFO)
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class Settings(BaseSettings):
    """Everything that may be set from outside. Every field is PILOTHOUSE_<NAME> in the environment."""

    model_config = SettingsConfigDict(env_prefix="PILOTHOUSE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    home: Path = Field(default=Path("var"), description="Folder of all state.")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = Field(
        default=("127.0.0.1", "localhost", "[::1]", "testserver"), description="Host headers that are answered."
    )
    owner_key: SecretStr | None = Field(
        default=None, description="32 characters or more; made at first start if absent."
    )
    encryption_keys: SecretStr | None = Field(
        default=None, description="id:base64 of 32 bytes, several by commas; the first seals, all open."
    )
    encryption_keys_file: Path | None = Field(
        default=None, description="The same in a file, one a line; `home`/encryption.keys, made at first start."
    )
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default is SQLite in `home`.")

    storage_url: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()-]+)*/?$",
        description="s3://bucket/prefix for the index; default is `home`. Credentials come from AWS_* as usual.",
    )
    storage_endpoint_url: str | None = Field(
        default=None, pattern=r"^https?://[^/@\s]+/?$", description="An S3-compatible server that is not AWS's."
    )

    redis_url: SecretStr | None = Field(
        default=None, description="Redis or Valkey that several processes share: limits, breakers, caches."
    )
    ledger_durable: bool = Field(default=False, description="Wait for the disk at each booking; survives a power cut.")
    scorecard: Path | None = Field(
        default=None, description="What evals measured of each model; `home`/scorecard.json."
    )

    jobs_in_process: bool = Field(default=True, description="Whether `serve` performs jobs beside `pilothouse worker`.")
    jobs_database_url: str | None = Field(
        default=None, description="PostgreSQL; default is `database_url`'s, or SQLite."
    )
    jobs_at_once: int = Field(default=4, ge=1, description="In one process.")
    jobs_at_once_per_tenant: int = Field(default=2, ge=1, description="In all processes together.")
    job_poll_s: float = Field(default=0.5, ge=0.05, le=10)
    job_retention_days: float = Field(default=30, gt=0, description="How long ended jobs and their results are kept.")

    config: Path | None = Field(default=None, description="The gateway's file; ./pilothouse.yaml if it is there.")
    openai_base_url: str | None = Field(default=None, description="An OpenAI-compatible server; its /v1 included.")
    openai_model: str | None = Field(default=None, description="Model name there; turns the provider on.")
    openai_api_key: SecretStr | None = None
    openai_context_tokens: int = Field(default=16_384, ge=512)
    openai_native_tools: bool = Field(
        default=True, description="Whether that model takes tools; else they are chosen for it."
    )
    openai_input_usd_per_mtok: Decimal | None = Field(default=None, ge=0, description="Where no list knows it.")
    openai_output_usd_per_mtok: Decimal | None = Field(default=None, ge=0)
    gguf_path: Path | None = Field(default=None, description="A GGUF file to serve in place of the embedded one.")
    gguf_context_tokens: int = Field(default=4_096, ge=512)
    model_threads: int = Field(default=2, ge=1)

    oidc_issuer: str | None = None
    oidc_audience: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_tenant_claim: str = "tenant"
    oidc_groups_claim: str = Field(default="groups", description="Lists the groups whose documents the user may see.")
    oidc_default_scopes: tuple[str, ...] = ("chat",)

    mlflow_tracking_uri: str | None = Field(default=None, description="Default is sqlite:///mlruns/mlflow.db.")
    mlruns: Path = Path("mlruns")
    export_traces: bool = True

    max_message_chars: int = Field(default=8_000, ge=1)
    max_upload_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    max_json_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    reattach_grace_s: float = Field(default=15.0, ge=0, description="How long a run nobody reads goes on.")
    run_timeout_s: float = Field(default=120.0, gt=0)
    approval_ttl_s: float = Field(default=7 * 24 * 3600.0, gt=0)
    reads_default_config: bool = Field(default=True, exclude=True)
    image_hosts: tuple[str, ...] = Field(default=(), description="Hosts whose images may appear in answers.")

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if self.owner_key is not None and len(self.owner_key.get_secret_value()) < 32:
            raise ValueError("PILOTHOUSE_OWNER_KEY must have 32 characters or more")
        if self.openai_model and not self.openai_base_url:
            raise ValueError("PILOTHOUSE_OPENAI_MODEL needs PILOTHOUSE_OPENAI_BASE_URL")
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError("PILOTHOUSE_OIDC_ISSUER needs PILOTHOUSE_OIDC_AUDIENCE")
        return self

    @classmethod
    def offline(cls, home: Path, **overrides: object) -> "Settings":
        """No environment, no key, no network: everything embedded, state under `home`."""
        values: dict[str, object] = {"home": home, "mlruns": home / "mlruns", "reads_default_config": False} | overrides
        return cls.model_construct(**{**cls.model_construct().__dict__, **cls.model_validate(values).__dict__})

    @property
    def default_config(self) -> Path:
        """Where the gateway's file is looked for when none is named. Offline settings find none."""
        return Path("pilothouse.yaml") if self.reads_default_config else self.home / "pilothouse.yaml"

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.home.resolve() / 'pilothouse.db'}"

    @property
    def store_is_shared(self) -> bool:
        """Whether processes with homes of their own may have the same store."""
        return self.store_url.startswith("postgresql")

    @property
    def job_engine_url(self) -> str:
        """Where the jobs' engine keeps what it carries: a file of its own, so that it is not one more writer on the
        store's; on PostgreSQL a schema of its own."""
        if self.jobs_database_url is not None or (self.database_url or "").startswith("postgresql"):
            return str(self.jobs_database_url or self.database_url)
        return f"sqlite:///{self.home.resolve() / 'jobs.db'}"

    @property
    def tracking_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{self.mlruns.resolve() / 'mlflow.db'}"
