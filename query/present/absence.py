"""Why there is nothing to show, and where there would be something."""

from datetime import datetime

from query.catalogue import find_metric
from query.history.trends import Trend
from query.present.live import probe_words
from query.reading.local_source import LocalSource

_REASON_WORDS = {
    "not_supported": "this device, driver or kernel has no such reading",
    "no_permission": "the collector's user may not read it",
    "lost": "the GPU was lost",
    "no_data": "the driver had nothing to say",
    "not_asked": "nothing that is recorded here has it",
}


def why_no_values(source: LocalSource, found: Trend) -> str:
    """A phrase that says why a trend has no values: the rows' own reason, the probe's, or where the data is."""
    if found.absent:
        reason = max(found.absent, key=lambda one: found.absent[one])
        rows = sum(found.absent.values())
        return f"{rows} rows were recorded without it ({reason}: {_REASON_WORDS.get(reason, 'see its meaning')})"
    metric = find_metric(found.metric)
    with source.reader() as reader:
        extent = reader.extents()[metric.kind.name]
    if extent.first_observed_at_us is None or extent.last_observed_at_us is None:
        words = probe_words(source, "gpu") if metric.kind.subject == "gpu" else None
        return f"none was ever recorded ({words})" if words else "none was ever recorded"
    is_within = (
        extent.first_observed_at_us < found.window.end_us and found.window.start_us <= extent.last_observed_at_us
    )
    if is_within and metric.is_counter:
        return "a rate needs two readings"
    zone = found.window.start.tzinfo
    first, last = (
        datetime.fromtimestamp(us / 1e6, zone) for us in (extent.first_observed_at_us, extent.last_observed_at_us)
    )
    held = f"the ledger holds it from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S}"
    return f"{held}, with a gap there" if is_within else held
