"""Commands that answer how a metric went."""

from typing import TYPE_CHECKING, Annotated

import typer

from gpuledger.commands.asking import Asked, Gpus, WindowText, answering
from store.errors import NoDataError

if TYPE_CHECKING:
    from query.local_source import LocalSource
    from query.trends import Trend

app = typer.Typer()


@answering(app)
def trend(
    asked: Asked,
    metric: Annotated[str, typer.Argument(help="A metric, such as gpu.utilization_percent.")],
    window: WindowText = "1h",
    gpu: Gpus = None,
) -> None:
    """Show how a metric went over a window: min, avg, p50, p95, max, last, slope and a sparkline."""
    from gpuledger.output import trend_answer
    from query.catalogue import find_metric
    from query.trends import trend as trend_of

    find_metric(metric)
    span = asked.window(window)
    found = trend_of(asked.source, metric, span, now=asked.now, gpus=tuple(gpu or ()))
    if not found.series:
        raise _no_values(asked.source, found)
    asked.emit(trend_answer(found))


def _no_values(source: "LocalSource", found: "Trend") -> NoDataError:
    from gpuledger.output import window_words
    from query.absence import why_no_values

    return NoDataError(f"There is no {found.metric} in {window_words(found.window)}", why_no_values(source, found))
