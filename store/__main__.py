"""`python -m store FOLDER`: upkeep, as the collector starts it."""

import os
import sys
import time

from store.rollups.due import rollups_are_due
from store.upkeep.settings import upkeep_arguments

rolls_up = rollups_are_due(upkeep_arguments(None).folder, now_us=time.time_ns() // 1000)
if not rolls_up:
    # Arrow imports numpy where it finds it, which is nearly half of the CPU time of this process (0.35 s, else 0.2 s),
    # each two minutes, for what is done once an hour.
    sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]
# Arrow's own allocator keeps what was freed: 60 MB more at the height of a merge.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

from store.upkeep.run import main  # noqa: E402 - after the lines above

sys.exit(main(rolls_up=rolls_up))
