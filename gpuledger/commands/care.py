"""Commands that care for the ledger."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuledger.commands.asking import Asked, Config, Data, answering, opened, settings_of
from store.errors import GpuledgerError

if TYPE_CHECKING:
    from store.rollups.updating import RollupResult

app = typer.Typer()


@app.command()
def seal(data: Data = None, config: Config = None) -> None:
    """Move the newest events from the head into Parquet now, instead of at the collector's next turn."""
    from store.upkeep.sealing import seal as seal_ledger

    settings = settings_of(config, data=data)
    opened(settings).close()
    done = seal_ledger(settings.data.absolute())
    print(f"{done.event_count:,} events sealed into {len(done.segments)} segments")


rollups_app = typer.Typer(help="Care for the rollups: what the samples were per minute and per hour.")
app.add_typer(rollups_app, name="rollups")


@rollups_app.command("update")
def rollups_update(data: Data = None, config: Config = None) -> None:
    """Bring the rollups up to the last closed hour now, instead of at the collector's next turn."""
    from store.rollups.updating import update_rollups

    settings = settings_of(config, data=data)
    opened(settings).close()
    _say_rolled(update_rollups(settings.data.absolute(), until_done=True), "made")


@rollups_app.command("rebuild")
def rollups_rebuild(data: Data = None, config: Config = None) -> None:
    """Make the rollups again from the events; hours whose events are gone stay as they are."""
    from store.rollups.updating import rebuild_rollups

    settings = settings_of(config, data=data)
    opened(settings).close()
    _say_rolled(rebuild_rollups(settings.data.absolute()), "made again")


def _say_rolled(done: "RollupResult", words: str) -> None:
    if not done.is_ours:
        raise GpuledgerError("Another process is making the rollups", "try again when it has ended")
    kept = f"; {done.hours_kept} kept as they were, their events are gone" if done.hours_kept else ""
    print(f"{done.hours_made + done.hours_added_to} hours {words} from {done.event_count:,} events{kept}")
    for path, reason in done.unreadable.items():
        print(f"gpuledger: {path} could not be read: {reason}", file=sys.stderr)
    if done.unreadable:
        raise typer.Exit(1)


@answering(app, with_zone=False)
def compact(
    asked: Asked,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is not due: one file a kind and day is left.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be merged.")] = False,
) -> None:
    """Merge small segments into larger ones now, instead of at the collector's next turn."""
    from gpuledger.answers.output import rows_answer
    from gpuledger.care import MERGE_COLUMNS, MERGED_COLUMNS, compact_now, compactable
    from gpuledger.up import upkeep_settings

    rows, note = (
        compactable(asked.folder, everything=everything)
        if dry_run
        else compact_now(asked.folder, upkeep_settings(asked.settings), everything=everything)
    )
    columns = MERGE_COLUMNS if dry_run else MERGED_COLUMNS
    asked.emit(rows_answer(rows, columns=columns, note=note))


@answering(app, with_zone=False)
def retain(
    asked: Asked,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go, and why.")] = False,
) -> None:
    """Remove what is too old or too much by the settings, instead of at the collector's next turn."""
    from gpuledger.answers.output import rows_answer
    from gpuledger.care import REMOVAL_COLUMNS, retain_now
    from gpuledger.up import upkeep_settings

    rows, note = retain_now(asked.folder, upkeep_settings(asked.settings), dry_run=dry_run)
    asked.emit(rows_answer(rows, columns=REMOVAL_COLUMNS, note=note))


@answering(app)
def hold(
    asked: Asked,
    window: Annotated[
        str | None,
        typer.Option("--window", "-w", help="The window to hold; without it, list them.", show_default=False),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="What it is held for.", show_default=False)] = "",
) -> None:
    """Hold a window against retention, or list what is held."""
    from gpuledger.answers.output import rows_answer, window_words
    from gpuledger.care import HOLD_COLUMNS, held_windows, hold_window

    if window is None:
        rows = held_windows(asked.folder)
        answer = rows_answer(rows, columns=HOLD_COLUMNS, note=f"{len(rows)} held windows")
        asked.emit(answer)
        return
    span = asked.window(window)
    print(f"hold {hold_window(asked.folder, span, why).id}: {window_words(span)}")


@app.command()
def release(
    number: Annotated[int, typer.Argument(help="The number that 'gpuledger hold' gave it.", metavar="HOLD")],
    data: Data = None,
    config: Config = None,
) -> None:
    """Release a held window: retention may take it again."""
    from gpuledger.care import release_window

    released = release_window(settings_of(config, data=data).data.absolute(), number)
    print(f"hold {released.id} is released{f' ({released.why})' if released.why else ''}")


@answering(app, with_zone=False)
def verify(
    asked: Asked,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside what is damaged, take in what the catalogue lost.")
    ] = False,
) -> None:
    """Read every segment and the head to their last byte; exit code 1 when something was wrong."""
    from gpuledger.integrity import verify_answer
    from store.repair.quarantine import here_and_now
    from store.repair.verification import verify as verify_ledger

    found = verify_ledger(asked.folder, here_and_now(), repair=repair)
    asked.emit(verify_answer(found, repair=repair))
    if not found.is_sound:
        raise typer.Exit(1)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="The backup's folder: new, or with an earlier backup of this ledger.")],
    data: Data = None,
    config: Config = None,
) -> None:
    """Copy the ledger as it is at one moment, beside whatever records; a second time only what is new."""
    from gpuledger.integrity import backup_line
    from store.repair.backup import take_backup
    from store.repair.quarantine import here_and_now

    done = take_backup(settings_of(config, data=data).data.absolute(), target.absolute(), here_and_now())
    print(backup_line(done, target))
    for reason in done.backup.damaged:
        print(f"gpuledger: not in the backup: {reason}", file=sys.stderr)
    if done.backup.damaged:
        raise typer.Exit(1)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A folder that 'gpuledger backup' wrote.", metavar="BACKUP")],
    data: Data = None,
    config: Config = None,
) -> None:
    """Make a ledger in a new or empty folder out of a backup; it keeps its identity."""
    from gpuledger.integrity import restore_line
    from store.repair.backup import restore_backup
    from store.repair.quarantine import here_and_now

    folder = settings_of(config, data=data).data.absolute()
    print(restore_line(restore_backup(source.absolute(), folder, here_and_now()), folder))
