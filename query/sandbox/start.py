"""How the process that runs ad-hoc SQL begins: it gives up its rights, and only then imports what it works with."""

import json
from multiprocessing.connection import Connection

from query.sandbox.confinement import limit_resources, restrict_files
from query.sandbox.no_sockets import refuse_sockets

START = "import sys; sys.path[:] = sys.argv[2:]; from query.sandbox.start import begin; begin(int(sys.argv[1]))"
"""What the interpreter is told to run, followed by the wire's number and the folders to import from."""


def begin(descriptor: int) -> None:
    """Become a worker that answers on that wire."""
    wire: Connection[bytes, bytes] = Connection(descriptor)
    try:
        setup = json.loads(wire.recv_bytes())
        limit_resources(setup["memory_max_bytes"])
        if setup["uses_landlock"]:
            restrict_files(setup["readable"])
        refuse_sockets()
        from query.sandbox.worker import Worker  # noqa: PLC0415 - its libraries start threads, see query.sandbox.confinement

        worker = Worker(wire, setup["settings"])
    except Exception as error:
        wire.send_bytes(f"{type(error).__name__}: {error}".encode())
        raise
    wire.send_bytes(b"")
    worker.serve()
