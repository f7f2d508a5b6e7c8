"""What upkeep is told, apart from `store.upkeep`, which needs Arrow: the collector hands it on and stays small."""

import msgspec

from store.retention import RetentionRules


class UpkeepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What upkeep needs to know.

    Args:
        grace_s: How long a file that was replaced or removed is left for readers that have it in their list.
        retention: What may be kept; everything, where it says nothing.
    """

    grace_s: float = 600.0
    retention: RetentionRules = RetentionRules()
