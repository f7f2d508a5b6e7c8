"""Watches the world and appends events. Stays small: no DuckDB, no pyarrow, no polars, no MCP."""
