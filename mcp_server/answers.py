"""The answers of the tools: one model each, and one text that says the same.

Hosts disagree on which of the two channels of a result they show to the model, so each is complete on its own. The
text is made from the model, never beside it: a summary first, then the window, tables as CSV, notes, the next call.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, Field

from query.figures import significant
from query.windows import Window

TEXT_CELL_MAX = 120
_DIRECTION_MARKS = (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROL = dict.fromkeys((*range(32), *range(127, 160), *_DIRECTION_MARKS)) | dict.fromkeys(b"\t\n\r", " ")


class WindowAnswer(BaseModel):
    """The time that was looked at, as it was resolved."""

    start: str = Field(alias="from", description="Beginning, with offset")
    end: str = Field(alias="to", description="End, not included, with offset")
    tz: str
    coverage: float | None = Field(
        description="Share of the expected samples that is there, 0 to 1; null for what is not sampled"
    )
    age_s: float | None = Field(description="Age of the newest sample in it, seconds")


class TableAnswer(BaseModel):
    """Rows under named columns; null is a gap, never 0."""

    columns: list[str]
    rows: list[list[Any]]


class Answer(BaseModel):
    """What every answer has."""

    summary: str
    notes: list[str] = []
    next: list[str] = Field(default=[], description="Calls that lead further")


class QueryMetricsAnswer(Answer):
    window: WindowAnswer
    stats: TableAnswer
    step_s: int
    resolution: Literal["raw", "minute", "hour"] = Field(
        description="From every sample, or the coarsest rollup used: then p50 and p95 are within 1 %"
    )
    series: dict[str, list[float | None]] | None = Field(
        None, description="With detail=full: the mean of each step, by metric/label"
    )
    series_start: str | None = None


class LiveStateAnswer(Answer):
    as_of: str
    age_s: float | None = Field(description="Age of the newest sample, seconds")
    stale: bool = Field(description="Whether that is too old to stand for now; then values are null")
    gpus: TableAnswer
    host: TableAnswer


class DescribeDataAnswer(Answer):
    table: TableAnswer


class RunSqlAnswer(Answer):
    table: TableAnswer
    types: list[str]
    truncated: bool
    elapsed_ms: float


def window_answer(window: Window, coverage: float | None, age_s: float | None) -> WindowAnswer:
    return WindowAnswer.model_validate(
        {
            "from": window.start.isoformat(timespec="seconds"),
            "to": window.end.isoformat(timespec="seconds"),
            "tz": window.time_zone,
            "coverage": significant(coverage, 4),
            "age_s": significant(age_s),
        }
    )


def clean(value: Any) -> Any:
    """Text from processes, containers and requests, fit for a table cell: no control or direction marks, bounded."""
    if not isinstance(value, str):
        return value
    text = value.translate(_CONTROL)
    return text if len(text) <= TEXT_CELL_MAX else text[: TEXT_CELL_MAX - 1] + "…"


def result(answer: Answer) -> CallToolResult:
    """The answer in both channels."""
    structured = answer.model_dump(mode="json", by_alias=True)
    return CallToolResult(content=[TextContent(type="text", text=text_of(structured))], structured_content=structured)


def text_of(structured: Mapping[str, Any]) -> str:
    """The same answer as text: nothing is left out, nothing added."""
    lines = [structured["summary"]]
    for name, value in structured.items():
        if name in ("summary", "notes", "next") or value is None or value == {}:
            continue
        lines += _section(name, value)
    lines += [f"note: {note}" for note in structured["notes"]]
    lines += [f"next: {call}" for call in structured["next"]]
    return "\n".join(lines)


def _section(name: str, value: Any) -> list[str]:
    if isinstance(value, dict) and set(value) == {"columns", "rows"}:
        return [f"{name}:", _csv(value["columns"], value["rows"])] if value["rows"] else [f"{name}: none"]
    if isinstance(value, dict):
        return [f"{name}:", *(f"  {key}: {_inline(item)}" for key, item in value.items())]
    return [f"{name}: {_inline(value)}"]


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return ",".join("" if item is None else str(item) for item in value)
    return str(_spelled(value))


def _spelled(value: Any) -> Any:
    """As JSON spells it; a gap in a table is an empty cell."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else value


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[None if cell is None else _spelled(cell) for cell in row] for row in rows])
    return text.getvalue().rstrip("\n")
