"""How verify, backup and restore speak to a person: lines for a terminal, one row a finding for a program."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gpuledger.answers.output import Answer
from query.figures import spelled
from store.repair.backup import Backup, BackupResult
from store.repair.verification import Finding, Verification

COLUMNS = ("kind", "path", "problem", "repaired")


def verify_answer(found: Verification, *, repair: bool) -> Answer:
    """What verifying found, as lines, as one row per finding, and whole."""

    def show(out: Console) -> None:
        for finding in found.findings:
            if finding.is_problem:
                out.print(escape(_finding_words(finding)), soft_wrap=True)
        for line in _closing_lines(found, repair=repair):
            out.print(escape(line), soft_wrap=True)

    rows = [{name: getattr(finding, name) for name in COLUMNS} for finding in found.findings]
    return Answer(found, rows, show, COLUMNS)


def _finding_words(finding: Finding) -> str:
    return f"{finding.path}: {finding.problem}{f' → {finding.repaired}' if finding.repaired else ''}"


def _closing_lines(found: Verification, *, repair: bool) -> list[str]:
    problems = [finding for finding in found.findings if finding.is_problem]
    unchecked = sum(not finding.is_problem for finding in found.findings)
    lines = [
        f"{found.segment_count:,} segments, {found.event_count:,} events, {spelled(found.size_bytes, 'B')} read: "
        + (f"{len(problems)} problem{'' if len(problems) == 1 else 's'}" if problems else "all sound")
    ]
    if unchecked and not repair:
        lines.append(f"{unchecked} segments have no checksum yet: 'gpuledger verify --repair' takes them")
    lines += [f"set aside in quarantine/{one.name}: {one.reason}" for one in found.set_aside]
    if found.foreign:
        lines.append(f"not the ledger's own, left alone: {', '.join(found.foreign)}")
    if problems and not repair:
        lines.append("run 'gpuledger verify --repair' to set aside what is damaged and take in what is missing")
    return lines


def backup_line(done: BackupResult, target: Path) -> str:
    backup = done.backup
    return (
        f"{target}: {backup.event_count:,} events in {len(backup.segments):,} segments and the head, "
        f"{spelled(backup.size_bytes, 'B')}; new: {done.new_segment_count:,} segments, {spelled(done.new_bytes, 'B')}"
    )


def restore_line(backup: Backup, folder: Path) -> str:
    return (
        f"{folder}: ledger {backup.ledger_id} as {backup.host} had it at {backup.taken_at}, "
        f"{backup.event_count:,} events; look at it with 'gpuledger status --data {folder}'"
    )
