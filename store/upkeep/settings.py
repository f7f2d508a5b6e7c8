"""What upkeep is told, apart from `store.upkeep.run`, which needs Arrow: the collector hands it on and stays small."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from store.upkeep.retention import RetentionRules


class UpkeepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What upkeep needs to know.

    Args:
        grace_s: How long a file that was replaced or removed is left for readers that have it in their list.
        retention: What may be kept; everything, where it says nothing.
    """

    grace_s: float = 600.0
    retention: RetentionRules = RetentionRules()


def upkeep_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What `python -m store` was given: `folder`, and `settings` as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m store", description="Seal a ledger's tail, roll up, retain and compact."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", default="{}", help="A JSON object: see store.upkeep.settings.")
    return parser.parse_args(arguments)
