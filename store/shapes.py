"""Every shape of every kind that was ever published, and the way from an older one to today's.

`store.events` declares today's shapes. `migrations/schema.lock.json` keeps all of them, by kind and version: it is what
an older release's frames and files are read by, and a change that would break them is refused against it. A new column
is no new version: it is NULL in what is older. A column that changes its type or instrument, or goes, is a new version
and one SELECT in `migrations/events/<kind>/v<n>_to_v<n+1>.sql` that makes the new rows out of `{relation}`.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import get_args

from store.errors import LedgerUnusableError, UsageError
from store.events import COMMON_FIELDS, KINDS, ColumnType, Field, Instrument, Kind

LOCK_NAME = "schema.lock.json"
Shapes = Mapping[str, Mapping[int, Mapping[str, str]]]
"""Kind to version to column to `<type> <instrument>`."""


def migrations() -> Traversable:
    """The folder of the history of shapes."""
    return files("migrations")


def shape(kind: str, version: int) -> Kind:
    """A kind as it was declared in that version; today's declaration where that is the version.

    Raises:
        LedgerUnusableError: A newer gpuledger wrote it.
    """
    known = KINDS.get(kind)
    if known is not None and known.version == version:
        return known
    if known is None or version > known.version:
        have = f"known here: {known.version}" if known else "the kind is not known here"
        raise LedgerUnusableError(
            f"The ledger holds events of {kind} in version {version}, of a newer gpuledger ({have})",
            "upgrade gpuledger: 'pip install --upgrade gpuledger'",
        )
    return _older_shape(known, version)


@cache
def _older_shape(known: Kind, version: int) -> Kind:
    columns = locked_shapes().get(known.name, {}).get(version)
    if columns is None:
        raise LedgerUnusableError(
            f"The ledger holds events of {known.name} in version {version}, which no release wrote",
            "name another folder with --data",
        )
    common = {column.name for column in COMMON_FIELDS}
    own = tuple(_field(name, words) for name, words in columns.items() if name not in common)
    return Kind(known.name, version, known.row, known.cadence, own, known.subject, known.series)


def _field(name: str, words: str) -> Field:
    type_name, instrument_name = words.split()
    column_type = next(one for one in get_args(ColumnType) if one == type_name)
    instrument = next(one for one in get_args(Instrument) if one == instrument_name)
    return Field(name, column_type, "", instrument=instrument)


def upcasts(kind: str, version: int) -> list[str]:
    """The SELECTs that lead from that version to today's, in their order; each reads from `{relation}`."""
    steps = range(version, KINDS[kind].version)
    return [_upcast(kind, step) for step in steps]


def _upcast(kind: str, version: int) -> str:
    name = f"v{version}_to_v{version + 1}.sql"
    return migrations().joinpath("events").joinpath(kind).joinpath(name).read_text()


def locked_shapes() -> Shapes:
    """The shapes that were published, as `migrations/schema.lock.json` has them."""
    text = migrations().joinpath(LOCK_NAME).read_text()
    return {
        kind: {int(version): columns for version, columns in versions.items()}
        for kind, versions in json.loads(text).items()
    }


def extended_lock(locked: Shapes) -> Shapes:
    """The published shapes with today's declarations entered: new kinds, new versions, new columns.

    Raises:
        UsageError: A published shape changed without a new version, or a version has no SELECT that leads to it.
    """
    extended = {kind: dict(versions) for kind, versions in locked.items()}
    for kind in KINDS.values():
        declared = {column.name: f"{column.type} {column.instrument}" for column in kind.columns}
        versions = extended.setdefault(kind.name, {})
        _check_kept(kind, versions.get(kind.version, {}), declared)
        for version in range(1, kind.version):
            _check_way(kind, version, versions)
        versions[kind.version] = declared
    return extended


def _check_kept(kind: Kind, published: Mapping[str, str], declared: Mapping[str, str]) -> None:
    for name, words in published.items():
        if declared.get(name) != words:
            now = f"is now {declared[name]}" if name in declared else "is gone"
            raise UsageError(
                f"{kind.name}.{name} was published as {words} in version {kind.version} and {now}",
                f"give {kind.name} version {kind.version + 1} and write "
                f"migrations/events/{kind.name}/v{kind.version}_to_v{kind.version + 1}.sql",
            )


def _check_way(kind: Kind, version: int, versions: Mapping[int, Mapping[str, str]]) -> None:
    path = f"migrations/events/{kind.name}/v{version}_to_v{version + 1}.sql"
    try:
        _upcast(kind.name, version)
    except OSError:
        raise UsageError(f"{kind.name} has no way from version {version} to {version + 1}", f"write {path}") from None
    if version not in versions:
        raise UsageError(f"{LOCK_NAME} does not know version {version} of {kind.name}", "restore it from git")


def lock_text(shapes: Shapes) -> str:
    """`migrations/schema.lock.json`."""
    plain = {kind: {str(version): columns for version, columns in sorted(shapes[kind].items())} for kind in shapes}
    return json.dumps(plain, indent=1) + "\n"
