"""A GPU's NVLinks."""

from collections.abc import Mapping, Sequence

from collector.gpu_calls import Reading
from collector.nvml import FieldBatch, Handle, refuse
from collector.probe import Answers
from store.events import AbsenceReason

LINKS_MAX = 18  # NVLinks of one GPU, Hopper and Blackwell


def link_sums(device: Handle, columns: Mapping[str, int]) -> Reading:
    """Sums over the NVLinks of fields that each link has.

    Args:
        device: The GPU.
        columns: Each column and its field.
    """
    batch = FieldBatch(device, [(field_id, link) for field_id in columns.values() for link in range(LINKS_MAX)])

    def read() -> Answers:
        told = batch.read()
        if all(code for code, _ in told):
            refuse(told[0][0])  # a GPU without NVLink is left alone for a while
        values = [value for _, value in told]
        return {
            column: _sum(values[place * LINKS_MAX : (place + 1) * LINKS_MAX]) for place, column in enumerate(columns)
        }

    return Reading(tuple(columns), ("fields " + " ".join(map(str, columns.values())) + " by link", read))


def _sum(values: Sequence[float | AbsenceReason]) -> float | AbsenceReason:
    """The sum of what is there; where nothing is, the reason of the first."""
    known = [value for value in values if not isinstance(value, AbsenceReason)]
    return sum(known) if known else values[0]
