"""How answers about a metric's past and future reach a person: a table, and the words it cannot go without."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from gpuledger.answers.output import Answer, plain_table, window_words
from query.figures import age_words, significant, sparkline, spelled
from query.history.anomalies import Anomalies, Spell
from query.history.changes import ChangeEffect, Changes
from query.history.comparison import Comparison, Difference
from query.history.forecast import Forecast, ForecastPoint, SeriesForecast

_MATCHED = {
    "whole_days": "whole days before and after",
    "day_before": "the same hours of the day before",
    "adjacent": "the time right before",
}


def anomalies_answer(found: Anomalies) -> Answer:
    """Spells: one row each, the furthest from what is usual first."""

    def show(out: Console) -> None:
        names = ["metric", "of", "from", "to"]
        columns = [*names, "was", "usual", "difference", "deviations"]
        table = plain_table(f"unusual  {window_words(found.window)}", columns, left=names)
        for one in found.spells:
            edges = [_moment(one.begins_at), _moment(one.ends_at)]
            figures = [spelled(value, one.unit) for value in (one.value, one.usual)]
            table.add_row(
                one.metric, escape(one.label), *edges, *figures, _signed(one.difference, one.unit), f"{one.score:+.1f}"
            )
        out.print(table if found.spells else _nothing_unusual(found))
        facts = [
            f"{found.n:,} steps of {age_words(found.step_s)} in {len(found.judged)} series",
            f"recorded {significant(100 * found.coverage)} %",
            f"against {window_words(found.past)}",
        ]
        _say(out, facts, (found.method, *found.limits))

    rows = [{name: getattr(one, name) for name in Spell.__slots__} for one in found.spells]
    return Answer(found, rows, show, Spell.__slots__)


def _nothing_unusual(found: Anomalies) -> str:
    return "Nothing was unusual." if found.n else "Nothing could be judged: there is too little history."


_EFFECT = ("median_before", "median_after", "difference", "standardised", "delta", "delta_low", "delta_high")
_DIFFERENCE = tuple(name for name in Difference.__slots__ if name != "effect")


def comparison_answer(found: Comparison, *, top: int) -> Answer:
    """Differences: one row a series, the most certain first."""

    def show(out: Console) -> None:
        title = f"{window_words(found.window)}  with  {window_words(found.reference)}"
        _show_differences(out, title, found.differences[:top])
        changed = len(found.changed)
        out.print(f"{changed} of {found.n} series differ by what matters, {min(top, found.n)} are shown")
        for words, only in (("before", found.only_before), ("now", found.only_after)):
            if only:
                out.print(f"only {words}: {escape(', '.join(only[:10]))}{' …' if len(only) > 10 else ''}")
        _say(out, [f"recorded {significant(100 * found.coverage)} %"], (found.method, *found.limits))

    rows = [_difference_row(one) for one in found.differences[:top]]
    return Answer(found, rows, show, (*_DIFFERENCE, *_EFFECT))


def _show_differences(out: Console, title: str, differences: Sequence[Difference]) -> None:
    columns = ["metric", "of", "before", "now", "difference", "delta", "95 % interval", "", "recorded"]
    table = plain_table(title, columns, left=("metric", "of", ""))
    for one in differences:
        effect = one.effect
        table.add_row(
            one.metric,
            escape(one.label),
            spelled(effect.median_before, one.unit),
            spelled(effect.median_after, one.unit),
            _signed(effect.difference, one.unit),
            f"{effect.delta:+.2f}",
            f"{effect.delta_low:+.2f} … {effect.delta_high:+.2f}",
            one.strength if effect.is_certain else "not certain",
            _both(one.coverage_before, one.coverage_after),
        )
    out.print(table)


def _both(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "–"
    return f"{100 * before:.0f} % / {100 * after:.0f} %"


def _difference_row(one: Difference) -> dict[str, Any]:
    return {
        **{name: getattr(one, name) for name in _DIFFERENCE},
        **{name: getattr(one.effect, name) for name in _EFFECT},
    }


def changes_answer(found: Changes) -> Answer:
    """Changes, each with what was different after it."""

    def show(out: Console) -> None:
        if not found.effects:
            out.print(f"Nothing changed in {window_words(found.window)}.")
        for one in found.effects:
            _show_change(out, one)
        recorded = [f"recorded {significant(100 * found.coverage)} %"] if found.effects else []
        _say(out, recorded, (found.method, *found.limits))

    rows = [row for one in found.effects for row in _change_rows(one)]
    return Answer(found, rows, show, ("at", "what", "matched", "why_not", *_DIFFERENCE, *_EFFECT))


def _show_change(out: Console, one: ChangeEffect) -> None:
    out.print(f"{_moment(one.change.at)}  {escape('; '.join(one.change.what))}", style="bold")
    if one.comparison is None:
        out.print(f"  not compared: {one.why_not}")
        return
    changed = one.comparison.changed
    against = f"{_MATCHED[one.matched or 'adjacent']}, {age_words(one.comparison.window.seconds)} each"
    if changed:
        _show_differences(out, f"against {against}", changed)
    else:
        out.print(f"  of {one.comparison.n} series none differs, against {against}")


def _change_rows(one: ChangeEffect) -> list[dict[str, Any]]:
    told = {"at": one.change.at, "what": "; ".join(one.change.what), "matched": one.matched, "why_not": one.why_not}
    if one.comparison is None:
        return [told | dict.fromkeys((*_DIFFERENCE, *_EFFECT))]
    return [told | _difference_row(difference) for difference in one.comparison.differences]


def forecast_answer(found: Forecast) -> Answer:
    """Where a metric goes: for a person a row a series, for a program a row a point."""

    def show(out: Console) -> None:
        columns = ["of", "verdict", "by", "slope/day", "at the end", "90 % interval", "error", "to come"]
        title = f"{found.metric}  {age_words(found.ahead_s)} on from {window_words(found.window)}"
        table = plain_table(title, columns, left=("of", "verdict", "by", "to come"))
        for one in found.series:
            table.add_row(*_forecast_cells(one, found.unit))
        out.print(table)
        for one in found.series:
            if one.limit:
                subject = f"{one.label}: " if one.label else ""
                out.print(escape(f"{subject}{spelled(one.limit.limit, found.unit)} {one.limit.words}"))
        coverage = [f"recorded {significant(100 * found.coverage)} %"] if found.coverage is not None else []
        facts = [f"{found.n:,} steps of {age_words(found.step_s)}", *coverage, "error: MASE, 1 is 'as a day ago'"]
        _say(out, facts, (found.method, *found.limits))

    names = ("metric", "unit", "label", "series", "verdict", "way", "mase", *ForecastPoint.__slots__)
    return Answer(found, [row for one in found.series for row in _forecast_rows(found, one)], show, names)


def _forecast_cells(one: SeriesForecast, unit: str) -> list[str]:
    if not one.points:
        return [escape(one.label), one.verdict, "–", "–", "–", "–", "–", ""]
    last = one.points[-1]
    return [
        escape(one.label),
        one.verdict,
        str(one.way),
        "–" if one.slope_per_day is None else _signed(one.slope_per_day, unit),
        spelled(last.value, unit),
        f"{spelled(last.low, unit)} … {spelled(last.high, unit)}",
        f"{significant(one.mase)}",
        sparkline([point.value for point in one.points[:: max(1, len(one.points) // 24)]], unit),
    ]


def _forecast_rows(found: Forecast, one: SeriesForecast) -> list[dict[str, Any]]:
    told: dict[str, Any] = {"metric": found.metric, "unit": found.unit, "label": one.label, "series": one.series}
    told |= {"verdict": one.verdict, "way": one.way, "mase": one.mase}
    return [told | asdict(point) for point in one.points]


def _signed(value: float, unit: str) -> str:
    return f"{'+' if value >= 0 else ''}{spelled(value, unit)}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _say(out: Console, facts: Sequence[str], sentences: Sequence[str]) -> None:
    if facts:
        out.print(" · ".join(facts), style="dim")
    for words in sentences:
        out.print(escape(words), style="dim")
