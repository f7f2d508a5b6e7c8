"""uvicorn's HTTP, for peers that do not finish what they begin to say.

uvicorn bounds the length of a request's head and not its time: whoever opens connections and sends half a line on each
holds them for ever, and the last of them keeps everybody else out.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class ImpatientProtocol(H11Protocol):
    """One connection; closed when a head has not arrived `limit_s` after it could have begun."""

    def __init__(self, *arguments: Any, limit_s: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limit_s = limit_s
        self._giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._giving_up:
            self._giving_up.cancel()

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if self._giving_up is None and self._is_waiting():
            self._giving_up = self.loop.call_later(self._limit_s, self._give_up)
        elif self._giving_up and not self._is_waiting():
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        self._giving_up = None
        if self._is_waiting() and not self.transport.is_closing():
            self.transport.close()
