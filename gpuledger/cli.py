"""The command line: its topics, and how every known problem ends."""

import os
import re
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command_name

from gpuledger import __version__
from gpuledger.commands import care, clients, costs, data, history, looking, requests, running
from store.errors import GpuledgerError

TOPICS = {
    "Record": running,
    "Look": looking,
    "A metric's past and future": history,
    "Requests": requests,
    "Energy and loss": costs,
    "Data in and out": data,
    "Care for the ledger": care,
    "Agents": clients,
}


class ByTopic(TyperGroup):
    """Shows the commands under the headings of their topics."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each topic."""
        for heading, topic in TOPICS.items():
            commands = [(name, self.get_command(ctx, name)) for name in _names(topic.app)]
            shown = {name: command for name, command in commands if command and not command.hidden}
            with formatter.section(heading):
                formatter.write_dl([(name, _main_clause(command)) for name, command in shown.items()])


def _main_clause(command: Any) -> str:
    clause: str = re.split(r"[:;.](?= |$)| - ", command.get_short_help_str(limit=1000))[0]
    return clause


def _names(topic: typer.Typer) -> list[str]:
    single = [one.name or get_command_name(one.callback.__name__) for one in topic.registered_commands if one.callback]
    return [*single, *(str(group.name) for group in topic.registered_groups)]


app = typer.Typer(
    name="gpuledger",
    help="A flight recorder for GPU machines.",
    cls=ByTopic,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _topic in TOPICS.values():
    app.add_typer(_topic.app)


def main() -> None:
    """Run the command line; every known problem ends as one sentence on stderr and its documented exit code."""
    try:
        app()
    except GpuledgerError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("GPULEDGER_DEBUG"):
            raise
        hint = "run again with GPULEDGER_DEBUG=1 and report what it prints"
        _fail(f"internal error: {type(error).__name__}: {error}: {hint}", 1)


def _fail(sentence: str, exit_code: int) -> NoReturn:
    print(f"gpuledger: {sentence}", file=sys.stderr)
    sys.exit(exit_code)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"gpuledger {__version__}")
        raise typer.Exit
