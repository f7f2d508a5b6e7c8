"""`python -m collector SETTINGS`: the collector process, with its settings as JSON.

`gpuledger collect` reads settings and flags, then replaces itself by this, so that the process that runs for
months carries neither the command line's nor the settings' libraries.
"""

import gc
import logging
import sys

import msgspec

from collector.service import CollectorSettings, run
from store.errors import GpuledgerError


def main() -> int:
    settings = msgspec.json.decode(sys.argv[1], type=CollectorSettings)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if settings.log_level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # that it listens has been said, with the address
    gc.freeze()  # what is imported stays: the collector need not look at it again
    # A batch of events is thousands of objects that live until it is written: looking at them every 700 new ones
    # takes up to a quarter of reading it.
    gc.set_threshold(20_000, 20, 20)
    try:
        return run(settings)
    except GpuledgerError as error:
        print(f"gpuledger: {error}", file=sys.stderr)  # noqa: T201 - a sentence for the person who started it
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
