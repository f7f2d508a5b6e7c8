"""Completions: what an argument of a prompt or of a resource's address can be."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio.to_thread
from mcp.server import MCPServer
from mcp.types import Completion, CompletionArgument

from mcp_server.tools.desk import Desk
from query.catalogue import metrics
from query.present.live import live_state
from query.present.timeline import event_types
from store.errors import GpuledgerError
from store.events import KINDS

VALUES_MAX = 100  # of the protocol
WINDOWS = ("15m", "1h", "6h", "24h", "7d", "30d", "today", "yesterday", "yesterday 9-17", "this week", "last hour")


def add_completions(server: MCPServer[Any], desk: Desk) -> None:
    """Answer what can stand where, by the argument's name."""

    def gpus() -> Sequence[str]:
        try:
            return [str(gpu.index) for gpu in live_state(desk.source, now=desk.now()).gpus]
        except GpuledgerError:  # no ledger yet: nothing to complete, and the call itself will say so
            return ()

    known: Mapping[str, Callable[[], Sequence[str]]] = {
        "metric": lambda: tuple(metrics()),
        "index": gpus,
        "gpu": gpus,
        "table": lambda: tuple(KINDS),
        "types": event_types,
        **dict.fromkeys(("window", "horizon", "start", "end", "a", "b"), lambda: WINDOWS),
    }

    async def complete(_: Any, argument: CompletionArgument, __: Any) -> Completion:
        if argument.name not in known:
            return Completion(values=[], total=0, has_more=False)
        found = matching(await anyio.to_thread.run_sync(known[argument.name]), argument.value)
        return Completion(values=found[:VALUES_MAX], total=len(found), has_more=len(found) > VALUES_MAX)

    server.completion()(complete)  # type: ignore[no-untyped-call]  # the SDK gives this one no types


def matching(values: Sequence[str], begun: str) -> list[str]:
    """The values that begin with what was typed, then those that hold it."""
    typed = begun.lower()
    first = [value for value in values if value.lower().startswith(typed)]
    return first + [value for value in values if typed in value.lower() and value not in first]
