"""Whatever is asked, it is answered or refused in one sentence: nothing else comes out of an expression."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from query.promql import errors, evaluation, history
from query.promql.asking import ask_at, ask_between
from query.promql.catalogue import series_between
from query.promql.errors import EvaluationError, ExpressionError
from query.promql.parser import parse
from query.promql.tree import Binary, Negative, Number

WORDS = [
    "dgx_gpu_utilization_percent",
    "dgx_gpu_energy_joules_total",
    "dgx_gpu_info",
    "{gpu=~'0|1'}",
    "{gpu!='0',job='gpuledger'}",
    "[1m]",
    "[5s]",
    "sum",
    "avg",
    "topk",
    "quantile",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "(gpu)",
    "(uuid,instance)",
    "bool",
    "offset",
    "5m",
    "rate",
    "increase",
    "max_over_time",
    "quantile_over_time",
    "predict_linear",
    "clamp",
    "round",
    "scalar",
    "vector",
    "time()",
    "absent",
    "sort",
    "timestamp",
    "and",
    "or",
    "unless",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "==",
    "!=",
    "<",
    ">=",
    "(",
    ")",
    ",",
    "0",
    "1",
    "2.5",
    "1e400",
    "Inf",
    "NaN",
    "'text'",
    "@",
    ":",
    "[",
    "]",
    "{",
    "}",
    "=",
    "$",
    "\\",
    '"',
    "0x1f",
    "1h30m",
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join))
@example("quantile(time(), dgx_gpu_utilization_percent)")
@example("topk(NaN, dgx_gpu_utilization_percent)")
@example("topk(1e400, dgx_gpu_utilization_percent)")
@example("round(dgx_gpu_utilization_percent, 0)")
@example("predict_linear(dgx_gpu_energy_joules_total[1m], Inf)")
@example("dgx_gpu_info offset 100000y")
@example("dgx_gpu_info[292y] offset 292y")
@example("dgx_gpu_info offset 292y")
@example("dgx_gpu_info offset -292y")
@example("dgx_gpu_up[99999999999999999999y]")
def test_any_words_in_any_order_are_answered_or_refused(machine, expression):
    at_ms = round(machine.at(9).timestamp() * 1000)
    for ask in (
        lambda: ask_at(machine.source, expression, at_ms),
        lambda: ask_between(machine.source, expression, at_ms - 9000, at_ms, 3000),
    ):
        with suppress(ExpressionError, EvaluationError):
            assert ask().type in ("scalar", "string", "vector", "matrix")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(expression):
    with suppress(ExpressionError, EvaluationError):
        assert parse(expression) is not None


def test_operators_bind_as_in_prometheus():
    one, two, three = Number(1.0), Number(2.0), Number(3.0)

    def tree(node):
        if isinstance(node, Binary):
            return (tree(node.left), node.operator, tree(node.right))
        return ("-", tree(node.operand)) if isinstance(node, Negative) else node

    assert tree(parse("1 + 2 * 3")) == (one, "+", (two, "*", three))
    assert tree(parse("1 - 2 - 3")) == ((one, "-", two), "-", three)
    assert tree(parse("1 ^ 2 ^ 3")) == (one, "^", (two, "^", three))
    assert tree(parse("-1 ^ 2")) == ("-", (one, "^", two))
    assert tree(parse("-1 * 2")) == (("-", one), "*", two)


@pytest.mark.parametrize("expression", ["(" * 5000 + "1" + ")" * 5000, "-" * 390 + "1", "1" + "+1" * 5000])
def test_an_expression_that_would_exhaust_the_stack_is_refused(expression):
    with pytest.raises(ExpressionError, match=r"nested too deeply|more than 400 words"):
        parse(expression)


def test_what_would_not_fit_into_memory_is_refused(machine, monkeypatch):
    at_ms = round(machine.at(9).timestamp() * 1000)
    for module in (errors, evaluation, history):
        monkeypatch.setattr(module, "SAMPLES_MAX", 15)
    assert ask_at(machine.source, "dgx_cpu_utilization_percent", at_ms).series
    with pytest.raises(EvaluationError, match="too many samples"):
        ask_at(machine.source, "dgx_gpu_utilization_percent", at_ms)
    with pytest.raises(EvaluationError, match="too many samples"):
        ask_between(machine.source, "dgx_cpu_utilization_percent", at_ms - 8000, at_ms, 500)


def test_of_a_long_window_the_series_are_those_of_its_last_day(book):
    book.append([book.gpu(0, 1, power_watts=1.0), book.gpu(2 * 86_400, 0, power_watts=1.0)])

    def gpus(until_s):
        start_ms, end_ms = (round(book.at(second).timestamp() * 1000) for second in (-1000, until_s))
        found = series_between(book.source, [parse("dgx_gpu_power_usage_watts").matchers], start_ms, end_ms)
        return [dict(labels)["gpu"] for labels in found]

    assert (gpus(3 * 86_400), gpus(86_399), gpus(-500)) == (["0"], ["1"], [])
