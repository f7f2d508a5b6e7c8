"""Speaks MCP and nothing else."""
