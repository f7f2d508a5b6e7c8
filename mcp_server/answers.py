"""The answers: what each holds, and how it becomes the two channels of a result.

Hosts disagree on which of the two they show to the model, so each is complete on its own. The text is made from the
structured answer, never beside it: a summary first, then the window, tables as CSV, what was cut, notes, the next call.
An answer that would be too long loses rows, says which, and names the call that gives them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from mcp_server.names import clean
from mcp_server.tokens import tokens
from query.figures import significant
from query.windows import Window

CONCISE_TOKENS_MAX = 600
TOKENS_MAX = 4_000
SQL_TOKENS_MAX = 6_000
NOTES_MAX = 12
NOTE_CHARACTERS_MAX = 320
_LAST = ("notes", "truncated", "next")


Number = int | float
"""A figure that stays whole where it is: 60, not 60.0, in both channels."""


class WindowAnswer(BaseModel):
    """The time that was looked at, as it was resolved.

    `coverage` is the share of the expected samples that is there, null for what is not sampled; `age_s` is the age of
    the newest sample in it.
    """

    start: str = Field(alias="from")
    end: str = Field(alias="to")
    tz: str
    coverage: Number | None
    age_s: Number | None


class Table(BaseModel):
    """Rows under named columns; null is a gap, never 0."""

    columns: list[str]
    rows: list[list[Any]]


class Answer(BaseModel):
    """What every answer has."""

    model_config = ConfigDict(extra="forbid")

    summary: str
    window: WindowAnswer
    truncated: str | None = None
    notes: list[str] = []
    next: list[str] = []


def window_answer(window: Window, coverage: float | None, age_s: float | None) -> WindowAnswer:
    return WindowAnswer.model_validate(
        {
            "from": window.start.isoformat(timespec="seconds"),
            "to": window.end.isoformat(timespec="seconds"),
            "tz": window.time_zone,
            "coverage": significant(coverage),
            "age_s": significant(max(0.0, age_s) if age_s is not None else None),
        }
    )


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as a model is shown it: `query_metrics(metrics=['gpu.power_watts'], window='1h')`."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def try_text(problem: str, name: str, arguments: Mapping[str, Any]) -> str:
    """A problem, and the call that would work."""
    return f"{problem}{'' if problem.endswith('?') else '.'} Try: {call_text(name, arguments)}"


def result(answer: Answer, *, tokens_max: int, more: str | None = None) -> CallToolResult:
    """The answer in both channels, neither above `tokens_max`.

    Args:
        answer: Whole.
        tokens_max: The most tokens that either channel may be.
        more: The call that gives what is cut.
    """
    structured = _fitted(answer.model_dump(mode="json", by_alias=True), tokens_max, more)
    return CallToolResult(content=[TextContent(type="text", text=text_of(structured))], structured_content=structured)


def size_tokens(structured: Mapping[str, Any]) -> int:
    """The tokens of the larger channel."""
    return max(tokens(text_of(structured)), tokens(json.dumps(structured, ensure_ascii=False, separators=(",", ":"))))


def _fitted(structured: dict[str, Any], tokens_max: int, more: str | None) -> dict[str, Any]:
    notes = [clean(note, NOTE_CHARACTERS_MAX) for note in structured["notes"]]
    structured["notes"] = notes[:NOTES_MAX]
    whole = {name: list(found) for name in structured if (found := _parts(structured, name)) is not None}
    size = size_tokens(structured)
    while size > tokens_max and (name := _longest(structured, whole)):
        parts = whole[name]
        kept = len(_parts(structured, name) or ())
        _keep(structured, name, parts[: max(1, min(kept - 1, int(kept * tokens_max / size)))])
        _say_cut(structured, whole, more)
        size = size_tokens(structured)
    return structured


def _parts(structured: Mapping[str, Any], name: str) -> Sequence[Any] | None:
    """What of a field can be left out one by one: the rows of a table, the series of `series`."""
    value = structured[name]
    if _is_table(value):
        return list(value["rows"])
    return list(value.items()) if isinstance(value, dict) and name == "series" else None


def _keep(structured: dict[str, Any], name: str, parts: Sequence[Any]) -> None:
    if _is_table(structured[name]):
        structured[name] = {**structured[name], "rows": list(parts)}
    else:
        structured[name] = dict(parts)


def _longest(structured: Mapping[str, Any], whole: Mapping[str, Sequence[Any]]) -> str | None:
    lengths = {name: len(str(structured[name])) for name in whole if len(_parts(structured, name) or ()) > 1}
    return max(lengths, key=lambda name: lengths[name], default=None)


def _say_cut(structured: dict[str, Any], whole: Mapping[str, Sequence[Any]], more: str | None) -> None:
    kept = {name: len(_parts(structured, name) or ()) for name in whole}
    cut = [
        f"{name}: the first {kept[name]} of {len(parts)}" for name, parts in whole.items() if kept[name] < len(parts)
    ]
    structured["truncated"] = f"cut to fit an answer: {', '.join(cut)}{f'; the rest: {more}' if more else ''}"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"columns", "rows"}


def text_of(structured: Mapping[str, Any]) -> str:
    """The same answer as text: nothing is left out, nothing added."""
    lines = [structured["summary"]]
    for name, value in structured.items():
        if name != "summary" and name not in _LAST and value is not None:
            lines += _section(name, value)
    lines += [f"note: {note}" for note in structured["notes"]]
    lines += [f"truncated: {structured['truncated']}"] if structured.get("truncated") else []
    lines += [f"next: {call}" for call in structured["next"]]
    return "\n".join(lines)


def _section(name: str, value: Any) -> list[str]:
    if _is_table(value):
        return [f"{name}:", ",".join(map(cell, value["columns"])), *(",".join(map(cell, row)) for row in value["rows"])]
    if isinstance(value, dict) and all(isinstance(item, list) for item in value.values()):
        return [f"{name}:", *(f"  {key}: {_inline(item)}" for key, item in value.items())]
    return [f"{name}: {_inline(value)}"]


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_inline(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ",".join(cell(item) for item in value)
    return _spelled(value)


def _spelled(value: Any) -> str:
    """As JSON spells it, but text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def cell(value: Any) -> str:
    """A cell of CSV: empty for a gap, so that text that is empty has its quotes."""
    if value is None:
        return ""
    text = _spelled(value)
    if isinstance(value, str) and not text:
        return '""'
    return '"' + text.replace('"', '""') + '"' if set(text) & {",", '"', "\n"} else text
