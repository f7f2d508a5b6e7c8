"""What commands have in common: their options, the settings behind them, and the forms of an answer."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

if TYPE_CHECKING:
    from gpuledger.answers.output import Answer, OutputChoice
    from gpuledger.settings import Settings
    from query.reading.local_source import LocalSource
    from query.windows import Window

Data = Annotated[Path | None, typer.Option("--data", help="The ledger's folder.", show_default=False)]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="A settings file to read instead of the usual ones.", show_default=False),
]
LogLevel = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.", show_default=False)]
WindowText = Annotated[
    str,
    typer.Option("--window", "-w", help="A time window: 15m, 'last hour', 'yesterday 9-17', 2026-11-22, A..B."),
]
Gpus = Annotated[list[int] | None, typer.Option("--gpu", help="Only this GPU; may be given again.", show_default=False)]
Zone = Annotated[str | None, typer.Option("--tz", help="IANA time zone of windows and answers.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Answer in CSV.")]
ParquetFile = Annotated[
    Path | None, typer.Option("--parquet", help="Write the answer to a Parquet file.", show_default=False)
]

FORMS = {"as_json": AsJson, "as_csv": AsCsv, "parquet": ParquetFile}
Own = ParamSpec("Own")


def settings_of(config: Path | None, **flags: Any) -> "Settings":
    """The settings in force: of the file, the environment and those flags that were given (`section__key`)."""
    from gpuledger.settings import load_settings

    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return load_settings(given, config)


def opened(settings: "Settings") -> "LocalSource":
    """The ledger to ask; says at once when there is none."""
    from query.reading.local_source import LocalSource

    source = LocalSource(settings.data.absolute())
    source.reader().close()
    return source


def time_zone_of(settings: "Settings", zone: str | None = None) -> str:
    """The zone that was asked for, else that of the settings, else the host's."""
    from query.windows import host_time_zone

    return zone or settings.query.time_zone or host_time_zone()


def now_in(time_zone: str) -> datetime:
    """The present instant.

    Raises:
        UsageError: There is no such zone.
    """
    from query.windows import zone_info

    return datetime.now(zone_info(time_zone))


@dataclass
class Asked:
    """What every answering command is asked with. Nothing is read before it is needed.

    Args:
        data: The folder that was named, if any.
        config: The settings file that was named, if any.
        tz: The time zone that was named, if any.
        as_json: Answer in JSON.
        as_csv: Answer in CSV.
        parquet: The file to write the answer to.
        flags: Settings that the command itself was given, as `section__key`.
    """

    data: Path | None = None
    config: Path | None = None
    tz: str | None = None
    as_json: bool = False
    as_csv: bool = False
    parquet: Path | None = None
    flags: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> "Settings":
        return settings_of(self.config, data=self.data, **self.flags)

    @cached_property
    def folder(self) -> Path:
        return self.settings.data.absolute()

    @cached_property
    def source(self) -> "LocalSource":
        return opened(self.settings)

    @cached_property
    def time_zone(self) -> str:
        return time_zone_of(self.settings, self.tz)

    @cached_property
    def now(self) -> datetime:
        return now_in(self.time_zone)

    @property
    def choice(self) -> "OutputChoice":
        from gpuledger.answers.output import OutputChoice

        return OutputChoice(as_json=self.as_json, as_csv=self.as_csv, parquet=self.parquet)

    def window(self, asked: str) -> "Window":
        """The window that the words mean now, in the zone of the question."""
        from query.windows import resolve_window

        return resolve_window(asked, now=self.now, time_zone=self.time_zone)

    def emit(self, answer: "Answer") -> None:
        """Write the answer in the form that was asked for, and on stderr what the ledger could not give for it."""
        from gpuledger.answers.output import emit

        emit(answer, self.choice)
        self.say_what_is_left_out()

    def say_what_is_left_out(self) -> None:
        for note in self.source.notes() if "source" in self.__dict__ else ():
            print(f"gpuledger: {note}", file=sys.stderr)


def answering(
    app: typer.Typer,
    name: str | None = None,
    *,
    with_data: bool = True,
    with_zone: bool = True,
    with_forms: bool = True,
) -> Callable[[Callable[Concatenate[Asked, Own], None]], Callable[Concatenate[Asked, Own], None]]:
    """Enter a command that answers; the options for what all are asked with follow its own.

    These are `--data`, `--config`, `--tz`, `--json`, `--csv` and `--parquet`; its first argument is what they said.

    Args:
        app: The commands of its topic.
        name: Where it is not the function's.
        with_data: It asks a ledger.
        with_zone: It reads or shows times.
        with_forms: Its answer has more forms than text.
    """
    shared = {
        **({"data": Data} if with_data else {}),
        "config": Config,
        **({"tz": Zone} if with_zone else {}),
        **(FORMS if with_forms else {}),
    }

    def enter(command: Callable[Concatenate[Asked, Own], None]) -> Callable[Concatenate[Asked, Own], None]:
        def run(*_: Own.args, **given: Own.kwargs) -> None:
            asked = Asked(**{key: given.pop(key) for key in shared})  # type: ignore[arg-type]
            command(asked, *_, **given)

        own = list(inspect.signature(command).parameters.values())[1:]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*own, *_options(shared)])  # type: ignore[attr-defined]
        run.__annotations__ = {}
        app.command(name)(run)
        return command

    return enter


def _options(shared: dict[str, Any]) -> list[inspect.Parameter]:
    switches = {"as_json", "as_csv"}
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if name in switches else None, annotation=annotation
        )
        for name, annotation in shared.items()
    ]
