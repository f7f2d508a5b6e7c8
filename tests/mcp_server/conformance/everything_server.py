"""Our server, put together as it always is, with what the conformance runner asks for by name: `everything_server.py LEDGER PORT`.

What stands before our tools stands before the fixtures, too, once it is told of them.
"""

import sys
from pathlib import Path

import uvicorn
from everything import InMemoryEventStore, add_fixtures

from mcp_server.guard import Guard
from mcp_server.server import make_server
from mcp_server.serving import ServerSettings


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    settings = ServerSettings(folder=folder, time_zone="UTC", version="0", sql_rows_max=100, sql_time_limit_s=10.0)
    server = make_server(settings)
    add_fixtures(server)
    (guard,) = (one for one in server.middleware if isinstance(one, Guard))
    guard._tools = {tool.name: tool for tool in server._tool_manager.list_tools()}
    guard._prompts = [prompt.name for prompt in server._prompt_manager.list_prompts()]
    app = server.streamable_http_app(event_store=InMemoryEventStore(), retry_interval=100)
    uvicorn.run(app, port=port, log_level="warning", ws="none")


if __name__ == "__main__":
    main()
