"""The routes that take events in, served by uvicorn on a real port, into a real ledger."""

import http.client
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette

from collector.ingest.face import Door, ingest_routes
from collector.ingest.intake import Intake
from collector.listening import bound_socket
from store.ledger import Ledger
from store.snapshot import LedgerReader
from store.space import SpaceLimits, SpaceWatch

WAIT_S = 20.0


@dataclass
class Face:
    """The served routes, and what their ledger holds."""

    folder: Path
    port: int
    intake: Intake
    door: Door
    free_bytes: int = 10**12

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def post(self, path, body, **headers):
        """Status, headers and body of the answer; text is sent as it is, the rest as JSON."""
        data = (
            body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        )
        named = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("POST", path, data, named)
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()
        finally:
            connection.close()

    def send(self, path, body, **headers):
        """Status and decoded answer."""
        status, _, answer = self.post(path, body, **headers)
        return status, json.loads(answer)

    def rows(self, kind="request"):
        """Rows of a kind, without the columns that are NULL."""
        if not (self.folder / "head.sqlite").exists():
            return []
        with LedgerReader(self.folder) as reader:
            rows = reader.snapshot([kind])[kind].tail.to_pylist()
        return [{name: value for name, value in row.items() if value is not None} for row in rows]


@pytest.fixture
def now_us():
    return time.time_ns() // 1000


@pytest.fixture
def face(tmp_path):
    folder = tmp_path / "ledger"
    intake = Intake(lambda: Ledger(folder, host="spark-1"), SpaceWatch(SpaceLimits(), lambda: served.free_bytes))
    listener = bound_socket("127.0.0.1", 0, "port")
    served = Face(folder, listener.getsockname()[1], intake, Door(intake, "the-token"))
    app = Starlette(routes=ingest_routes(served.door))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield served
    server.should_exit = True
    thread.join(WAIT_S)
    intake.close()
    listener.close()
