"""How answers about requests reach a person: one table each, and the words that an answer cannot go without."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from gpuledger.answers.output import Answer, plain_table, window_words
from query.figures import significant, spelled
from query.requests.causes import Cause
from query.requests.diagnosis import Diagnosis, WindowDiagnosis
from query.requests.slow import SlowRequest, SlowRequests
from query.requests.summary import MEASURES, SHARES, RequestGroup, RequestSummary, Spread

_HEADINGS = {"time_to_first_token": "TTFT", "time_per_output_token": "TPOT"}


def requests_answer(found: RequestSummary) -> Answer:
    """Requests by group: one row each."""

    def show(out: Console) -> None:
        begins = ["begins"] if found.step_s else []
        shown = [name for name in MEASURES if any(getattr(one, name) for one in found.groups)]
        spreads = [f"{_HEADINGS.get(name, name)} {share}" for name in shown for share in _shares(name)]
        columns = [*found.by, *begins, "n", "n/s", "in progress", "failed", "tokens/s", *spreads]
        table = plain_table(f"requests  {window_words(found.window)}", columns, left=(*found.by, "begins"))
        for one in found.groups:
            table.add_row(*_group_cells(one, found, shown))
        out.print(table)
        _say_facts(out, found.n, found.coverage, found.method, found.limits)

    return Answer(found, [_group_row(one, found) for one in found.groups], show)


def _shares(measure: str) -> Sequence[str]:
    return tuple(SHARES) if measure == "duration" else ("p50", "p99")


def _group_cells(one: RequestGroup, found: RequestSummary, shown: Sequence[str]) -> list[str]:
    names = [escape(getattr(one, name) or "–") for name in found.by]
    begins = [f"{one.begins_at:%Y-%m-%d %H:%M:%S}"] if one.begins_at else []
    tokens = one.output_tokens_per_second
    figures = [
        f"{one.n:,}",
        spelled(one.per_second, ""),
        spelled(one.concurrency_mean, ""),
        spelled(100 * one.error_ratio, "%"),
        spelled(tokens, ""),
    ]
    return [
        *names,
        *begins,
        *figures,
        *(_seconds(getattr(one, name), share) for name in shown for share in _shares(name)),
    ]


def _seconds(spread: Spread | None, share: str) -> str:
    return seconds_words(getattr(spread, share)) if spread else "–"


def seconds_words(value_s: float | None) -> str:
    """`12.3 ms`, `1.84 s`; a dash where there is none."""
    if value_s is None:
        return "–"
    return f"{significant(1000 * value_s)} ms" if abs(value_s) < 1 else f"{significant(value_s)} s"


def _group_row(one: RequestGroup, found: RequestSummary) -> dict[str, Any]:
    row: dict[str, Any] = {"from": found.window.start, "to": found.window.end, "resolution": found.resolution}
    row |= {name: getattr(one, name) for name in RequestGroup.__slots__ if name not in MEASURES}
    for measure in MEASURES:
        spread = getattr(one, measure)
        for name in Spread.__slots__:
            row[f"{measure}_{name}{'' if name == 'n' else '_seconds'}"] = getattr(spread, name) if spread else None
    return row


def slow_answer(found: SlowRequests) -> Answer:
    """Slow requests: one row each."""

    def show(out: Console) -> None:
        columns = ["request", "ended", "operation", "model", "status", "took", "expected", "queue", "TTFT", "in", "out"]
        title = f"slow requests  {window_words(found.window)}"
        table = plain_table(title, columns, left=("ended", "operation", "model", "status"))
        for one in found.requests:
            table.add_row(*_slow_cells(one))
        out.print(table)
        out.print(f"{found.slow_count:,} slow of {found.n:,}: {found.method}")
        _say_facts(out, found.n, found.coverage, "", found.limits)

    rows = [{name: getattr(one, name) for name in SlowRequest.__slots__} for one in found.requests]
    return Answer(found, rows, show, SlowRequest.__slots__)


def _slow_cells(one: SlowRequest) -> list[str]:
    names = [escape(name or "–") for name in (one.operation, one.model, one.status)]
    times = (one.duration_seconds, one.expected_seconds, one.queue_seconds, one.time_to_first_token_seconds)
    counts = ("–" if count is None else f"{count:,}" for count in (one.input_tokens, one.output_tokens))
    return [str(one.seq), _moment(one.observed_at), *names, *map(seconds_words, times), *counts]


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _say_facts(out: Console, n: int, coverage: float, method: str, limits: Sequence[str]) -> None:
    facts = [
        f"{n:,} requests",
        *([f"from {method}"] if method else []),
        f"recording for {significant(100 * coverage)} %",
    ]
    out.print(" · ".join(facts), style="dim")
    for words in limits:
        out.print(words, style="dim")


def diagnosis_answer(found: Diagnosis) -> Answer:
    """What stood out while a request ran: one row a cause."""

    def show(out: Console) -> None:
        out.print(f"request {found.seq}  {window_words(found.window)}", style="bold")
        usual = f"; {seconds_words(found.expected_seconds)} is usual" if found.expected_seconds is not None else ""
        out.print(f"It took {seconds_words(found.duration_seconds)}{usual}. {_verdict(found)}")
        for one in found.phases:
            before = f"; {seconds_words(one.usual_seconds)} is usual" if one.usual_seconds is not None else ""
            out.print(f"  {one.name}: {seconds_words(one.seconds)}{before}", style="dim")
        _say_causes(out, found.causes)
        out.print(f"{found.n} requests {escape(found.method)}", style="dim")
        for words in found.limits:
            out.print(escape(words), style="dim")

    return Answer(found, _cause_rows(found.causes), show, Cause.__slots__)


def _cause_rows(causes: Sequence[Cause]) -> list[dict[str, Any]]:
    return [{name: getattr(one, name) for name in Cause.__slots__} for one in causes]


def _say_causes(out: Console, causes: Sequence[Cause]) -> None:
    for one in causes:
        effect = "" if one.effect_seconds is None else f"  (about {seconds_words(one.effect_seconds)})"
        out.print(f"  {one.name}: {escape(one.sentence)}{effect}")
        for words in one.evidence:
            out.print(f"      for: {escape(words)}", style="dim")
        for words in one.counter_evidence:
            out.print(f"      against: {escape(words)}", style="dim")


def window_diagnosis_answer(found: WindowDiagnosis) -> Answer:
    """What stood out in a window: one row a cause."""

    def show(out: Console) -> None:
        out.print(f"window  {window_words(found.window)}", style="bold")
        if found.slowdown_ratio is not None:
            slow = f"{found.slow_count:,} of {found.request_count:,} requests took longer than their tokens explain"
            out.print(f"{slow}; altogether {found.slowdown_ratio:.2f} times what is usual.")
        out.print(_window_verdict(found))
        _say_causes(out, found.causes)
        out.print(f"{escape(found.method)}; recording for {significant(100 * found.coverage)} %", style="dim")
        for words in found.limits:
            out.print(escape(words), style="dim")

    return Answer(found, _cause_rows(found.causes), show, Cause.__slots__)


def _window_verdict(found: WindowDiagnosis) -> str:
    if found.is_slow is None:
        return "Whether that is slow is not known."
    if found.causes:
        return "What stood out meanwhile:"
    return "Nothing stands out." if found.coverage else "Nothing was sampled meanwhile."


def _verdict(found: Diagnosis) -> str:
    if found.is_slow is None:
        return "Whether that is slow is not known."
    if not found.is_slow:
        return "That is what requests like it take."
    if found.causes:
        return "What stood out meanwhile:"
    return "Nothing stands out." if found.coverage else "Nothing was sampled meanwhile."
