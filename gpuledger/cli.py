"""The command line: its topics, and how every known problem ends."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from gpuledger import __version__
from gpuledger.commands import care, clients, costs, data, history, looking, requests, running
from store.errors import GpuledgerError

app = typer.Typer(
    name="gpuledger",
    help="A flight recorder for GPU machines.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for topic in (running, looking, history, requests, costs, data, care, clients):
    app.add_typer(topic.app)


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
