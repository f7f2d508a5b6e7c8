"""The MCP server on stdin and stdout, as a host starts it from the bundle."""

import sys

from gpuledger.cli import main

sys.argv[1:] = ["mcp", *sys.argv[1:]]
main()
