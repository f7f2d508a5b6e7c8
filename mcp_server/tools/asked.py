"""The tools about requests: which were slow, and what went on meanwhile."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mcp.types import CallToolResult
from pydantic import Field

from mcp_server.answers import Answer, Number, Table, call_text, window_answer
from mcp_server.figures import figure
from mcp_server.names import clean
from mcp_server.tools.desk import Desk, Detail, WindowText, Zone
from query.errors import GroupingError
from query.figures import significant
from query.history.recorded import recorded
from query.windows import Window

if TYPE_CHECKING:
    from query.requests.causes import Cause
    from query.requests.diagnosis import Diagnosis, Phase, WindowDiagnosis
    from query.requests.slow import SlowRequest, SlowRequests

Percentile = Literal[50, 90, 95, 99]


class SlowRequestsAnswer(Answer):
    """`judged` says by what the requests of each operation and model were judged."""

    judged: Table
    requests: Table


class DiagnoseAnswer(Answer):
    """`slow` is null where too little is like it to know; `phases` says where a request's time went."""

    slow: bool | None
    duration_s: Number | None
    expected_s: Number | None
    compared_with: int
    phases: Table
    causes: Table


class RequestTools:
    """Requests."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def slow_requests(
        self,
        window: WindowText = "1h",
        threshold: Annotated[str | None, Field(description="slow from so long on: 500ms, 2s")] = None,
        percentile: Annotated[Percentile | None, Field(description="of its operation and model; default 99")] = None,
        excess: Annotated[bool, Field(description="slow beyond what its tokens explain")] = False,
        operation: str | None = None,
        model: str | None = None,
        limit: Annotated[int, Field(ge=1, le=100)] = 5,
        detail: Detail = "concise",
        tz: Zone = None,
    ) -> Annotated[CallToolResult, SlowRequestsAnswer]:
        """The slowest requests of a window by one rule, and from when on one is slow. For why, diagnose one."""
        from query.requests.slow import slow_requests, slow_rule  # noqa: PLC0415 - as above
        from query.requests.summary import RequestFilter  # noqa: PLC0415 - these take 0.1 s: not of every start

        now = self._desk.now(tz)
        span = self._desk.window(window, tz, now)
        rule = slow_rule(threshold=threshold, percentile=percentile, excess=excess)
        only = RequestFilter(operation=operation, model=model)
        found = slow_requests(self._desk.source, span, rule, now=now, only=only, top=limit)
        more = call_text("slow_requests", {"window": window, "limit": 50, "detail": "full"})
        _, age_s = recorded(self._desk.source, span, now=now)
        answer = slow_answer(found, age_s, detail, more)
        if not found.n:
            answer = self._desk.explained(answer, ["request"], span, "slow_requests", {})
        return self._desk.answer(answer, detail=detail, more=more)

    def diagnose(
        self,
        at: Annotated[str | None, Field(description="a request of slow_requests, or a trace id")] = None,
        window: Annotated[str | None, Field(description="or all of a window")] = None,
        tz: Zone = None,
    ) -> Annotated[CallToolResult, DiagnoseAnswer]:
        """Why a request, or a window, was slow: what stood out against fast requests like it, for and against."""
        from query.requests.diagnosis import diagnose, diagnose_window  # noqa: PLC0415 - as above

        now = self._desk.now(tz)
        if at is not None and window is None:
            answer = diagnosis_answer(diagnose(self._desk.source, at, now=now), now)
        elif window is not None and at is None:
            span = self._desk.window(window, tz, now)
            found = diagnose_window(self._desk.source, span, now=now)
            answer = window_diagnosis_answer(found, now)
            if not found.request_count and not found.coverage:
                answer = self._desk.explained(answer, ["request", "system_sample"], span, "diagnose", {})
        else:
            raise GroupingError("One thing is diagnosed at a time", "give at, a request, or window")
        return self._desk.answer(answer, detail="full")


def slow_answer(found: "SlowRequests", age_s: float | None, detail: str, more: str) -> SlowRequestsAnswer:
    """Slow requests, one row each. Operations and models are data: none is in the summary."""
    extra = ["service", "trace_id", "event_id"] if detail == "full" else []
    shown = len(found.requests)
    return SlowRequestsAnswer(
        summary=f"{found.slow_count} of {found.n} requests slow: {found.method}.",
        window=window_answer(found.window, found.coverage, age_s),
        judged=Table(
            columns=["operation", "model", "n", "slow_from_s"],
            rows=[
                [clean(one.operation, 40), clean(one.model, 60), one.n, significant(one.limit_seconds)]
                for one in found.judged[:10]
            ],
        ),
        requests=Table(
            columns=["request", "ended", "operation", "model", "status", "took_s", "expected_s", "queue_s", "ttft_s",
                     "in_tokens", "out_tokens", *extra],
            rows=[_slow_row(one, found.window, with_more=bool(extra)) for one in found.requests],
        ),
        notes=[*found.limits, *(["no request was slow by that rule"] if found.n and not shown else [])],
        next=[
            *([call_text("diagnose", {"at": str(found.requests[0].seq)})] if shown else []),
            *([more] if shown < found.slow_count else []),
            *([call_text("slow_requests", {"window": "7d"})] if found.n and not shown else []),
        ],
    )  # fmt: skip


def _slow_row(one: "SlowRequest", window: Window, *, with_more: bool) -> list[Any]:
    times = (one.duration_seconds, one.expected_seconds, one.queue_seconds, one.time_to_first_token_seconds)
    names = (clean(one.operation, 40), clean(one.model, 60), clean(one.status, 20))
    ended = one.observed_at.astimezone(window.start.tzinfo)
    row = [str(one.seq), f"{ended:%m-%d %H:%M:%S}", *names, *map(figure, times), one.input_tokens, one.output_tokens]
    return [*row, *(clean(name, 60) for name in (one.service, one.trace_id, one.event_id))] if with_more else row


def diagnosis_answer(found: "Diagnosis", now: datetime) -> DiagnoseAnswer:
    """What stood out while a request ran, the largest effect first; the words of a cause may name processes."""
    expected = "" if found.expected_seconds is None else f", {significant(found.expected_seconds)} s is usual"
    return DiagnoseAnswer(
        summary=f"It took {significant(found.duration_seconds)} s{expected}. {_verdict(found)}",
        window=window_answer(found.window, found.coverage, (now - found.window.end).total_seconds()),
        slow=found.is_slow,
        duration_s=significant(found.duration_seconds) or 0,
        expected_s=significant(found.expected_seconds),
        compared_with=found.n,
        phases=_phases(found.phases),
        causes=_causes(found.causes),
        notes=[found.method, *found.limits],
        next=[call_text("list_events", {"window": _clock_window(found.window)})],
    )


def window_diagnosis_answer(found: "WindowDiagnosis", now: datetime) -> DiagnoseAnswer:
    """What stood out in a window; effects are sums over its slow requests."""
    ratio = significant(found.slowdown_ratio)
    words = "" if ratio is None else f", together {ratio} times what was expected"
    judged = f"{found.slow_count} of {found.request_count} requests were slow{words}"
    if not found.request_count:
        judged = "No request of that time can be judged"
    return DiagnoseAnswer(
        summary=f"{judged}. {_verdict(found)}",
        window=window_answer(found.window, found.coverage, (now - found.window.end).total_seconds()),
        slow=found.is_slow,
        duration_s=None,
        expected_s=None,
        compared_with=found.n,
        phases=_phases(()),
        causes=_causes(found.causes),
        notes=[found.method, *found.limits],
        next=[call_text("list_events", {"window": _clock_window(found.window)})],
    )


def _clock_window(window: Window) -> str:
    return "..".join(f"{edge:%Y-%m-%d %H:%M:%S}" for edge in (window.start, window.end))


def _phases(phases: Sequence["Phase"]) -> Table:
    rows = [[one.name, significant(one.seconds), significant(one.usual_seconds)] for one in phases]
    return Table(columns=["phase", "took_s", "usual_s"], rows=rows)


def _causes(causes: Sequence["Cause"]) -> Table:
    rows = [
        [one.name, significant(one.effect_seconds), clean(one.sentence, 240), *map(_joined, _sides(one))]
        for one in causes
    ]
    return Table(columns=["cause", "effect_s", "what", "for", "against"], rows=rows)


def _sides(cause: "Cause") -> Sequence[Sequence[str]]:
    return cause.evidence, cause.counter_evidence


def _joined(words: Sequence[str]) -> str | None:
    return clean("; ".join(words), 240) if words else None


def _verdict(found: "Diagnosis | WindowDiagnosis") -> str:
    if found.is_slow is None:
        return "Whether that is slow is not known."
    if not found.is_slow:
        return "That is what requests like it take."
    if found.causes:
        return f"{len(found.causes)} thing{'' if len(found.causes) == 1 else 's'} stood out meanwhile."
    return "Nothing stands out." if found.coverage else "Nothing was sampled meanwhile."
