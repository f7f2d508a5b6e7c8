"""The two tools that write, and only where the settings allow it: a file into one folder, and a note."""

import time
from typing import Annotated, Literal

from mcp.types import CallToolResult
from pydantic import Field

from mcp_server.answers import Answer, call_text, window_answer
from mcp_server.tools.desk import Desk
from query.errors import GroupingError
from query.history.recorded import recorded_share
from store.annotating import TAGS_MAX, TEXT_MAX, Annotation, annotate
from store.events import KINDS


class ExportDataAnswer(Answer):
    path: str
    events: int
    size_bytes: int


class AddAnnotationAnswer(Answer):
    seq: int


class WritingTools:
    """What changes something."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def export_data(
        self,
        what: Annotated[str, Field(max_length=20_000, description="a view such as gpu_sample, or one SELECT")],
        name: Annotated[str, Field(description="of the file, without an ending")],
        window: str = "24h",
        format: Literal["parquet", "arrow", "csv", "json"] = "parquet",  # noqa: A002 - the word that users know
    ) -> Annotated[CallToolResult, ExportDataAnswer]:
        """Write events of a window, or a query's answer, to a new file for a notebook."""
        from query.export import export_into  # noqa: PLC0415 - only who exports pays for it

        folder = self._desk.settings.export
        if folder is None:
            raise GroupingError("Exports are off", "the setting mcp.allow_export allows them")
        now = self._desk.now()
        span = self._desk.window(window, None, now)
        written = export_into(
            self._desk.source,
            KINDS.get(what.strip(), what),
            span,
            format=format,
            name=name,
            folder=folder,
            time_limit_s=self._desk.settings.sql_time_limit_s,
        )
        coverage = recorded_share(self._desk.source, span, now=now)
        read = {"parquet": "read_parquet", "arrow": "read_ipc", "csv": "read_csv", "json": "read_ndjson"}[format]
        answer = ExportDataAnswer(
            summary=f"{written.event_count:,} rows in a new file of {written.size_bytes:,} bytes.",
            window=window_answer(span, coverage, None),
            path=str(written.path),
            events=written.event_count,
            size_bytes=written.size_bytes,
            notes=[f"polars.{read}({str(written.path)!r}) reads it"],
        )
        if not written.event_count and what.strip() in KINDS:
            asked = {"what": what, "name": f"{name}-nearest"}
            answer = self._desk.explained(answer, [what.strip()], span, "export_data", asked)
        return self._desk.answer(answer)

    def add_annotation(
        self,
        text: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)],
        at: Annotated[str | None, Field(description="a window that it is about; default now")] = None,
        tags: Annotated[list[str] | None, Field(max_length=TAGS_MAX)] = None,
    ) -> Annotated[CallToolResult, AddAnnotationAnswer]:
        """Pin a note to a time, to be found by list_events."""
        now = self._desk.now()
        now_us = time.time_ns() // 1000
        span = self._desk.window(at or "1s", None, now)
        edges = (span.start_us, min(span.end_us, now_us)) if at else (now_us, now_us)
        note = Annotation(text, *edges, tuple(tags or ()), author="mcp")
        seq = annotate(self._desk.settings.folder, note, now_us=now_us)
        answer = AddAnnotationAnswer(
            summary="The note is in the ledger.",
            window=window_answer(span, None, None),
            seq=seq,
            next=[call_text("list_events", {"window": at or "1h", "types": ["annotation"]})],
        )
        return self._desk.answer(answer)
