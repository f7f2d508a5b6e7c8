"""Prometheus' HTTP API over the ledger, so that Grafana's own data source reads its history.

Answers and errors have Prometheus' shapes: 400 and `bad_data` for what is no question, 422 and `execution` for one that
cannot be answered, 503 and `unavailable` where the ledger cannot be read.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import anyio
import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from query.promql.asking import PromAnswer, ask_at, ask_between
from query.promql.catalogue import series_between
from query.promql.errors import EvaluationError, ExpressionError
from query.promql.families import Labels
from query.promql.history import known_families
from query.promql.lexer import duration_ms
from query.promql.parser import parse
from query.promql.series import Series
from query.promql.tree import Matcher, Selector
from query.reading.local_source import LocalSource
from store.errors import GpuledgerError

BODY_BYTES_MAX = 1_000_000
FAR_MS = 10**14  # the year 5138: what datetime and the ledger's microseconds both hold

Parameters = Sequence[tuple[str, str]]
Question = Callable[[LocalSource, "Asked"], Any]


class Asked:
    """The parameters of a request.

    Args:
        parameters: Names and values, of the address and of a form.
        now_s: Seconds since the epoch.
        path: What the path names.
    """

    def __init__(self, parameters: Parameters, now_s: float, path: Mapping[str, str]) -> None:
        self._parameters = parameters
        self.now_ms = round(now_s * 1000)
        self.path = path

    def text(self, name: str) -> str:
        return next((value for known, value in self._parameters if known == name), "")

    def every(self, name: str) -> list[str]:
        return [value for known, value in self._parameters if known == name]

    def moment_ms(self, name: str, otherwise_ms: int) -> int:
        """A time in seconds since the epoch or as RFC 3339.

        Raises:
            ExpressionError: It is neither.
        """
        text = self.text(name)
        if not text:
            return otherwise_ms
        try:
            found = float(text)
        except ValueError:
            try:
                found = datetime.fromisoformat(text).timestamp()
            except ValueError:
                found = math.nan
        if not abs(found) * 1000 <= FAR_MS:
            raise ExpressionError(f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp')
        return round(found * 1000)

    def length_ms(self, name: str) -> int:
        """A number of seconds or a duration. Raises ExpressionError where it is neither."""
        text = self.text(name)
        try:
            found = float(text) * 1000
        except ValueError:
            try:
                return duration_ms(text)
            except ExpressionError:
                found = math.nan
        if not abs(found) <= FAR_MS:
            raise ExpressionError(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration')
        return round(found)


def routes(source: LocalSource, *, now_s: Callable[[], float] = time.time) -> list[Route]:
    """The API's routes under /api/v1, GET and POST.

    Args:
        source: The ledger.
        now_s: What time it is, seconds since the epoch.
    """
    questions: Mapping[str, Question] = {
        "query": _query,
        "query_range": _query_range,
        "series": _series,
        "labels": _labels,
        "label/{name}/values": _label_values,
        "metadata": _metadata,
    }
    return [_route(source, path, question, now_s) for path, question in questions.items()]


def _route(source: LocalSource, path: str, question: Question, now_s: Callable[[], float]) -> Route:
    async def answer(request: Request) -> Response:
        body = await _form(request)
        if body is None:
            return _refusal(413, "bad_data", f"the form is longer than {BODY_BYTES_MAX} bytes")
        asked = Asked([*request.query_params.multi_items(), *body], now_s(), request.path_params)
        return await anyio.to_thread.run_sync(_answered, question, source, asked)

    return Route(f"/api/v1/{path}", answer, methods=["GET", "POST"])


async def _form(request: Request) -> Parameters | None:
    """What was posted; None where it is too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            return None
    return parse_qsl(body.decode(errors="replace"), keep_blank_values=True)


def _answered(question: Question, source: LocalSource, asked: Asked) -> Response:
    try:
        data = question(source, asked)
    except ExpressionError as error:
        return _refusal(400, "bad_data", str(error))
    except EvaluationError as error:
        return _refusal(422, "execution", str(error))
    except GpuledgerError as error:
        return _refusal(503, "unavailable", str(error))
    warnings = [*(data.warnings if isinstance(data, PromAnswer) else ()), *source.notes()]
    body = {"status": "success", "data": _told(data) if isinstance(data, PromAnswer) else data}
    return _json(200, body | ({"warnings": warnings} if warnings else {}))


def _json(status: int, body: Any) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _refusal(status: int, kind: str, words: str) -> Response:
    return _json(status, {"status": "error", "errorType": kind, "error": words})


def _query(source: LocalSource, asked: Asked) -> PromAnswer:
    return ask_at(source, asked.text("query"), asked.moment_ms("time", asked.now_ms))


def _query_range(source: LocalSource, asked: Asked) -> PromAnswer:
    start_ms, end_ms = _edge_ms(asked, "start"), _edge_ms(asked, "end")
    return ask_between(source, asked.text("query"), start_ms, end_ms, asked.length_ms("step"))


def _edge_ms(asked: Asked, name: str) -> int:
    if not asked.text(name):
        raise ExpressionError(f'invalid parameter "{name}": cannot parse "" to a valid timestamp')
    return asked.moment_ms(name, 0)


def _series(source: LocalSource, asked: Asked) -> list[dict[str, str]]:
    if not asked.every("match[]"):
        raise ExpressionError("no match[] parameter provided")
    return [dict(labels) for labels in _found(source, asked)]


def _labels(source: LocalSource, asked: Asked) -> list[str]:
    return sorted({name for labels in _found(source, asked) for name, _ in labels})


def _label_values(source: LocalSource, asked: Asked) -> list[str]:
    wanted = asked.path["name"]
    return sorted({value for labels in _found(source, asked) for name, value in labels if name == wanted})


def _metadata(_: LocalSource, asked: Asked) -> dict[str, Any]:
    only, limit = asked.text("metric"), asked.text("limit")
    if limit and not limit.lstrip("-").isdecimal():
        raise ExpressionError("limit must be a number")
    told = {
        name: [{"type": family.type, "help": family.help, "unit": ""}]
        for name, family in known_families().items()
        if only in ("", name)
    }
    return dict(list(told.items())[: int(limit)]) if limit and int(limit) >= 0 else told


def _found(source: LocalSource, asked: Asked) -> list[Labels]:
    selections = [_matchers(text) for text in asked.every("match[]")] or [()]
    start_ms, end_ms = asked.moment_ms("start", 0), asked.moment_ms("end", asked.now_ms)
    return series_between(source, selections, start_ms, end_ms)


def _matchers(selector: str) -> Sequence[Matcher]:
    node = parse(selector)
    if not isinstance(node, Selector) or node.range_ms is not None or node.offset_ms:
        raise ExpressionError(f'invalid parameter "match[]": {selector!r} is no selector of series')
    return node.matchers


def _told(answer: PromAnswer) -> dict[str, Any]:
    return {"resultType": answer.type, "result": _result(answer)}


def _result(answer: PromAnswer) -> Any:
    if answer.type == "scalar":
        return _pairs(answer.series[0])[0]
    if answer.type == "string":
        return [_pairs(answer.series[0])[0][0], answer.text]
    if answer.type == "vector":
        return [{"metric": dict(one.labels), "value": _pairs(one)[0]} for one in answer.series]
    return [{"metric": dict(one.labels), "values": _pairs(one)} for one in answer.series]


def _pairs(series: Series) -> list[tuple[float, str]]:
    times = (series.time_ms / 1000).tolist()
    return list(zip(times, map(spelled_number, series.values.tolist()), strict=True))


def spelled_number(value: float) -> str:
    """A number as Prometheus spells it: the shortest that is read back as the same, without an exponent."""
    if not math.isfinite(value):
        return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    text = repr(value)
    if "e" in text:
        return np.format_float_positional(value, trim="-")
    return text.removesuffix(".0")
