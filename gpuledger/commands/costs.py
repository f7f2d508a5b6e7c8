"""Commands about what GPUs cost and what they lose: energy, waste, throttling, leaks, stragglers, empty work."""

from typing import TYPE_CHECKING, Annotated

import typer

from gpuledger.commands.asking import Asked, WindowText, answering
from gpuledger.commands.requests import GroupedBy, Model, Operation, Service, Status, grouping
from store.errors import NoDataError

if TYPE_CHECKING:
    from query.costs.prices import Prices
    from query.windows import Window

app = typer.Typer()


def _prices(asked: Asked) -> "Prices":
    from query.costs.prices import Prices

    costs = asked.settings.costs
    return Prices(costs.price_per_kwh, costs.currency, costs.co2_grams_per_kwh, costs.power_usage_effectiveness_ratio)


def _nothing(what: str, window: "Window") -> NoDataError:
    from gpuledger.answers.output import window_words

    return NoDataError(f"There is no {what} in {window_words(window)}", "see 'gpuledger status' for what there is")


@answering(app)
def energy(
    asked: Asked,
    window: WindowText = "1h",
    by: GroupedBy = None,
    top: Annotated[int, typer.Option("--top", min=0, max=10_000, help="How many requests to show, the dearest.")] = 10,
    service: Service = None,
    operation: Operation = None,
    model: Model = None,
    status: Status = None,
) -> None:
    """Show what requests cost in energy: joules and Wh per request and per thousand tokens, and what none used."""
    from gpuledger.answers.costs import energy_answer
    from query.costs.energy import energy_of_requests
    from query.requests.summary import RequestFilter

    span = asked.window(window)
    only = RequestFilter(service, operation, model, status)
    found = energy_of_requests(asked.source, span, by=grouping(by), only=only, top=top, prices=_prices(asked))
    if not found.gpus:
        raise _nothing("energy or power of a GPU", span)
    asked.emit(energy_answer(found))


@answering(app)
def waste(
    asked: Asked,
    window: WindowText = "24h",
    by: Annotated[str, typer.Option("--by", help="Who holds: user, container, pod, job or process.")] = "user",
    idle_below: Annotated[
        float, typer.Option("--idle-below", min=0.1, max=100, help="Utilization in percent below which a GPU is idle.")
    ] = 5.0,
) -> None:
    """Show GPU-hours that were held and not used, with their energy, price and CO2: by GPU and by who held them."""
    from gpuledger.answers.costs import waste_answer
    from query.costs.waste import waste as waste_of

    span = asked.window(window)
    found = waste_of(asked.source, span, now=asked.now, by=by, idle_below_percent=idle_below, prices=_prices(asked))
    if not found.n and not found.coverage:
        raise _nothing("sample", span)
    asked.emit(waste_answer(found))


@answering(app)
def throttling(asked: Asked, window: WindowText = "1h") -> None:
    """Show what held the GPUs' clocks down: time lost by reason, and an estimate of the work lost."""
    from gpuledger.answers.costs import throttling_answer
    from query.costs.throttling import throttling as throttling_of

    span = asked.window(window)
    found = throttling_of(asked.source, span, now=asked.now)
    if not found.n:
        raise _nothing("sample of a GPU", span)
    asked.emit(throttling_answer(found))


@answering(app)
def leaks(asked: Asked, window: WindowText = "6h") -> None:
    """Show processes whose GPU memory only grows, how fast, and when the memory is used up."""
    from gpuledger.answers.costs import leaks_answer
    from query.costs.leaks import memory_leaks

    span = asked.window(window)
    found = memory_leaks(asked.source, span, now=asked.now)
    if not found.n:
        raise _nothing("process with GPU memory", span)
    asked.emit(leaks_answer(found))


@answering(app)
def stragglers(asked: Asked, window: WindowText = "1h") -> None:
    """Show GPUs that are slower or hotter than their peers at the same work, all the time."""
    from gpuledger.answers.costs import stragglers_answer
    from query.costs.stragglers import stragglers as stragglers_of

    span = asked.window(window)
    found = stragglers_of(asked.source, span, now=asked.now)
    if not found.groups:
        raise _nothing("sample of a GPU", span)
    asked.emit(stragglers_answer(found))


@answering(app)
def activity(asked: Asked, window: WindowText = "1h") -> None:
    """Show GPUs that are busy but empty: utilization is high while nearly nothing runs on them."""
    from gpuledger.answers.costs import activity_answer
    from query.costs.activity import activity as activity_of

    span = asked.window(window)
    found = activity_of(asked.source, span, prices=_prices(asked))
    if not found.n:
        raise _nothing("sample of a GPU", span)
    asked.emit(activity_answer(found))
