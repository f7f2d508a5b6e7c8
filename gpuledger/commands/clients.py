"""Commands that enter gpuledger into the settings of MCP clients."""

from pathlib import Path
from typing import Annotated

import typer

from gpuledger.commands.asking import Data

app = typer.Typer()


@app.command()
def init(
    client: Annotated[
        str, typer.Option("--client", help="claude-code, claude-desktop, cursor, vscode, codex or gemini.")
    ],
    scope: Annotated[str, typer.Option("--scope", help="user: for every project; project: for this folder.")] = "user",
    data: Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take gpuledger out again.")] = False,
) -> None:
    """Enter gpuledger into an MCP client's settings; the file as it was is kept as .bak."""
    from gpuledger.clients import Place, enter_server, remove_server

    place = Place(client, scope, home=Path.home(), folder=Path.cwd())
    done = remove_server(place, dry_run=dry_run) if undo else enter_server(place, data=data, dry_run=dry_run)
    if not done.difference:
        print(f"{done.path}: gpuledger {'is not entered' if undo else 'is entered already'}")
        return
    print(done.difference, end="")
    kept = f" (as it was: {done.backup})" if done.backup else ""
    print(f"{done.path}: {'would be' if dry_run else 'was'} written{kept}")
