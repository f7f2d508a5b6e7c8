"""Our server, put together as it always is, with what the conformance runner asks for by name: `everything_server.py LEDGER PORT`.

The fixtures are not ours, so neither are their arguments checked nor their calls recorded otherwise than all are.
"""

import sys
from pathlib import Path

import uvicorn
from everything import InMemoryEventStore, add_fixtures

from mcp_server.server import make_server
from mcp_server.tools import ServerSettings


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    settings = ServerSettings(folder=folder, time_zone="UTC", version="0", sql_rows_max=100, sql_time_limit_s=10.0)
    server = make_server(settings)
    add_fixtures(server)
    app = server.streamable_http_app(event_store=InMemoryEventStore(), retry_interval=100)
    uvicorn.run(app, port=port, log_level="warning", ws="none")


if __name__ == "__main__":
    main()
