"""The settings: one table with name, default, unit and help; where each value came from.

A later source wins: /etc/gpuledger/config.toml, $XDG_CONFIG_HOME/gpuledger/config.toml (or the one file named by
--config or GPULEDGER_CONFIG), the environment (`GPULEDGER_SECTION__KEY`), flags. An unknown key is an error.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from store.errors import UsageError, did_you_mean

ENV_PREFIX = "GPULEDGER_"
CONFIG_VARIABLE = "GPULEDGER_CONFIG"
OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "GPULEDGER_DEBUG", "GPULEDGER_SEND_TO", "GPULEDGER_SEND_TOKEN"})


def default_data_folder() -> Path:
    """$XDG_DATA_HOME/gpuledger, by default ~/.local/share/gpuledger."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local/share") / "gpuledger"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CollectorSection(_Section):
    """What is watched, how often, and where its HTTP face listens."""

    host: str = Field(
        default="127.0.0.1", description="Address of /metrics, /healthz, /readyz and of what takes events in."
    )
    port: int = Field(default=9465, ge=0, le=65535, description="Port of the same; 0 takes any free one.")
    sample_interval_s: float = Field(default=1.0, ge=0.02, le=60, description="Seconds between two samples.")
    seal_interval_s: float = Field(
        default=120.0, ge=0.1, le=3600, description="Seconds between two sealings of the tail into Parquet."
    )
    low_space_bytes: int = Field(
        default=500_000_000,
        ge=0,
        description="Free bytes below which host, process and server samples are no longer written; 0: never.",
    )
    read_only_space_bytes: int = Field(
        default=100_000_000,
        ge=0,
        description="Free bytes below which nothing is written until there is more; 0: only a full disk stops it.",
    )
    source: str = Field(
        default="nvml",
        pattern="^(nvml|demo|replay:.+)$",
        description="Where GPU samples come from: nvml, the NVIDIA driver; demo, made up; replay:FILE, a recording.",
    )
    demo_seed: int = Field(default=0, ge=0, lt=2**48, description="Which made-up history --source demo shows.")
    replay_loop: bool = Field(default=False, description="Begin a recording anew when it is over.")


class MetricsSection(_Section):
    """What /metrics exposes beside our own families."""

    dcgm: bool = Field(
        default=False, description="The families of NVIDIA's dcgm-exporter, too; else only at /metrics?set=dcgm."
    )


class McpSection(_Section):
    """Where the MCP server listens when it serves HTTP, and whom it answers there."""

    host: str = Field(default="127.0.0.1", description="Address of the MCP server over HTTP.")
    port: int = Field(
        default=9466, ge=0, le=65535, description="Port of the MCP server over HTTP; 0 takes any free one."
    )
    auth: Literal["token", "oauth", "none"] = Field(
        default="token",
        description="What clients must show: token, the content of mcp.token in the ledger's folder; "
        "oauth, a token of the issuer; none, nothing, which is refused on a public address.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="What clients may send as Host, each exactly, with its port; "
        "where empty, what follows from the address.",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="From which pages a browser may ask, each exactly; where empty, from this server's own."
    )
    body_bytes_max: int = Field(default=1_000_000, ge=1_000, le=64_000_000, description="Longest request over HTTP.")
    body_time_limit_s: float = Field(
        default=10.0, gt=0, le=600, description="Seconds within which a request must have arrived."
    )
    insecure: bool = Field(default=False, description="Answer everybody on a public address with auth none.")
    oauth_issuer: str = Field(default="", description="With auth oauth: whose tokens are taken, as `iss` calls it.")
    oauth_audience: str = Field(
        default="", description="With auth oauth: this server's public URL with /mcp, as `aud` calls it."
    )
    oauth_scopes: tuple[str, ...] = Field(default=(), description="With auth oauth: scopes that a token must have.")
    allow_export: bool = Field(default=False, description="Whether an agent may write files into export_folder.")
    export_folder: Path | None = Field(
        default=None,
        description="The one folder that an agent's exports go to. Unset: the ledger's, with -exports behind its name.",
    )
    export_bytes_max: int = Field(
        default=1_000_000_000, ge=0, description="Most bytes that all files in export_folder take together."
    )
    allow_annotations: bool = Field(default=False, description="Whether an agent may pin notes to times.")


class QuerySection(_Section):
    """How questions are read and bounded."""

    time_zone: str = Field(default="", description="IANA time zone of windows and answers; this host's where empty.")
    sql_rows_max: int = Field(default=10_000, ge=1, le=10_000_000, description="Most rows that one ad-hoc query gives.")
    sql_time_limit_s: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds after which an ad-hoc query is stopped."
    )


def _own_age(kind: str, otherwise: str = "as retention.max_age_days") -> Any:
    return Field(default=None, ge=0, description=f"Days after which events of {kind} go; 0: never. Unset: {otherwise}.")


class RetentionSection(_Section):
    """What is kept of what was recorded."""

    max_age_days: float = Field(
        default=400.0,
        ge=0,
        description="Days after which samples and requests go, so that a year ago is there; 0: never.",
    )
    max_size_bytes: int = Field(
        default=20_000_000_000,
        ge=0,
        description="Bytes of all segments together, beyond which the oldest go; 0: no limit.",
    )
    min_free_bytes: int = Field(
        default=2_000_000_000,
        ge=0,
        description="Free bytes on the ledger's disk, below which the oldest go; 0: no rule.",
    )
    free_space_keeps_days: float = Field(
        default=7.0, ge=0, description="The newest days, which min_free_bytes leaves alone: others fill disks, too."
    )
    gpu_sample_max_age_days: float | None = _own_age("gpu_sample")
    system_sample_max_age_days: float | None = _own_age("system_sample")
    device_sample_max_age_days: float | None = _own_age("device_sample")
    process_sample_max_age_days: float | None = _own_age("process_sample")
    nvlink_sample_max_age_days: float | None = _own_age("nvlink_sample")
    request_max_age_days: float | None = _own_age("request")
    server_sample_max_age_days: float | None = _own_age("server_sample")
    gpu_event_max_age_days: float | None = _own_age("gpu_event", "never")
    inventory_max_age_days: float | None = _own_age("inventory", "never")
    ledger_event_max_age_days: float | None = _own_age("ledger_event", "never")
    annotation_max_age_days: float | None = _own_age("annotation", "never")


class CostsSection(_Section):
    """What energy costs here. Where nothing is set, no price and no CO2 is told."""

    price_per_kwh: float | None = Field(
        default=None, ge=0, description="What a kWh costs, in costs.currency; unset: no price is told."
    )
    currency: str = Field(default="", max_length=8, description="Currency of costs.price_per_kwh, such as EUR.")
    co2_grams_per_kwh: float | None = Field(
        default=None, ge=0, description="Grams of CO2 that a kWh of this grid stands for; unset: none is told."
    )
    power_usage_effectiveness_ratio: float = Field(
        default=1.0, ge=1, le=10, description="Energy of the building per energy of its machines (PUE)."
    )


class ScrapedServer(_Section):
    """An inference server to scrape: one `[[scrape]]` table. What it wants to be shown stands in files of its own."""

    url: str
    service: str | None = None
    token_file: Path | None = None
    headers_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_one = False
        if not is_one or "@" in parts.netloc:
            raise ValueError("write it as http://127.0.0.1:8000/metrics, without a password")
        return url

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.model_dump(exclude_none=True).items())


class Settings(BaseSettings):
    """All settings. Values are read by `load_settings`, which knows where each came from."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    data: Path = Field(default_factory=default_data_folder, description="The ledger's folder.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is logged to stderr."
    )
    collector: CollectorSection = CollectorSection()
    metrics: MetricsSection = MetricsSection()
    mcp: McpSection = McpSection()
    query: QuerySection = QuerySection()
    retention: RetentionSection = RetentionSection()
    costs: CostsSection = CostsSection()
    scrape: tuple[ScrapedServer, ...] = Field(
        default=(),
        description="Inference servers to scrape, one `[[scrape]]` table each with `url`, and where wanted `service`, "
        "`token_file` (a bearer token) and `headers_file` (lines of `Name: value`); in the environment a JSON list.",
    )

    @property
    def export_folder(self) -> Path:
        """The folder that an agent's exports go to."""
        return self.mcp.export_folder or self.data.absolute().with_name(f"{self.data.absolute().name}-exports")

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        # load_settings merges the sources itself, because it must say where each value came from.
        return (sources["init_settings"],)


@dataclass(frozen=True, slots=True)
class SettingOrigin:
    """One setting: its dotted name, its value, where that came from."""

    name: str
    value: Any
    origin: str


def setting_fields() -> Iterator[tuple[str, Any]]:
    """Dotted name and declaration of every setting, in the order of the table."""
    for name, declared in Settings.model_fields.items():
        if isinstance(declared.annotation, type) and issubclass(declared.annotation, _Section):
            yield from ((f"{name}.{key}", field) for key, field in declared.annotation.model_fields.items())
        else:
            yield name, declared


def setting_words(value: Any) -> list[str]:
    """A setting's value as it is shown; a list has a line for each of its members."""
    return [str(one) for one in value] or ["none"] if isinstance(value, tuple) else [str(value)]


def load_settings(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """The settings in force.

    Args:
        flags: Dotted name to value, for those given on the command line.
        config: A settings file to read instead of the usual ones.

    Raises:
        UsageError: A file cannot be read, a key is unknown, or a value is not allowed; the message names its origin.
    """
    return _merged(flags or {}, config)[0]


def load_origins(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> list[SettingOrigin]:
    """Every setting with its value and where that came from. Raises as `load_settings`."""
    settings, origins = _merged(flags or {}, config)
    return [SettingOrigin(name, _at(settings, name), origins.get(name, "default")) for name, _ in setting_fields()]


def _merged(flags: Mapping[str, Any], config: Path | None) -> tuple[Settings, dict[str, str]]:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in (*_file_layers(config), ("environment", _environment()), ("flag", flags)):
        for name, value in layer.items():
            _check_known(name, origin)
            values[name], origins[name] = value, origin
    try:
        return Settings(**_nested(values)), origins
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        origin = origins.get(name) or origins.get(name.partition(".")[0], "default")
        hint = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"The setting {name} from {origin} cannot be {first['input']!r}", hint.lower()) from None


def _file_layers(config: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named:
        yield str(named), _read_toml(named, is_named=True)
        return
    base = os.environ.get("XDG_CONFIG_HOME", "")
    own = (Path(base) if Path(base).is_absolute() else Path.home() / ".config") / "gpuledger/config.toml"
    for path in (Path("/etc/gpuledger/config.toml"), own):
        yield str(path), _read_toml(path, is_named=False)


def _read_toml(path: Path, *, is_named: bool) -> dict[str, Any]:
    try:
        return dict(_flat(tomllib.loads(path.read_text())))
    except FileNotFoundError:
        if is_named:
            raise UsageError(f"There is no settings file {path}", "name one that is there, or none") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The settings file {path} is damaged ({error})", "correct it there, or move it aside"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"The settings file {path} cannot be read ({reason})", "make it readable for this user"
        ) from None


def _environment() -> dict[str, Any]:
    known = {name.replace(".", "__").upper(): name for name, _ in setting_fields()}
    sections = {name.partition("__")[0] for name in known if "__" in name}
    for variable in os.environ:
        short = variable.removeprefix(ENV_PREFIX)
        if (
            variable.startswith(ENV_PREFIX)
            and variable not in OTHER_VARIABLES
            and short not in known | dict.fromkeys(sections)
        ):
            known_variables = [f"{ENV_PREFIX}{name}" for name in known]
            hint = did_you_mean(variable, known_variables, "see 'gpuledger config'")
            raise UsageError(f"The environment variable {variable} names no setting", hint)
    return dict(_flat(EnvSettingsSource(Settings)()))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[key] = value
    return nested


def _check_known(name: str, origin: str) -> None:
    known = [known_name for known_name, _ in setting_fields()]
    if name not in known:
        hint = did_you_mean(name, known, "see 'gpuledger config' for those there are")
        raise UsageError(f"The setting {name} from {origin} is unknown", hint)


def _at(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value
