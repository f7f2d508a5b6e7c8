"""What is made ready when the first answer is out: whoever waits for that one pays for nothing else."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

AFTER_S = 0.5  # the answer has been written and read by then

Next = Callable[[Any], Awaitable[Any]]


class AfterFirstAnswer:
    """Middleware that has something made ready once, a moment after the first answer of a tool.

    Args:
        make_ready: Called in a thread; an OSError of it is met again by whoever needs what it makes.
        after_s: How long that moment is.
    """

    def __init__(self, make_ready: Callable[[], object], after_s: float = AFTER_S) -> None:
        self._make_ready = make_ready
        self._after_s = after_s
        self._is_begun = False

    async def __call__(self, ctx: Any, call_next: Next) -> Any:
        outcome = await call_next(ctx)
        if ctx.method == "tools/call" and not self._is_begun:
            self._is_begun = True
            asyncio.get_running_loop().call_later(self._after_s, self._begin)
        return outcome

    def _begin(self) -> None:
        threading.Thread(target=self._run, name="make-ready").start()

    def _run(self) -> None:
        with suppress(OSError):
            self._make_ready()
