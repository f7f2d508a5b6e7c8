"""How the ledger of this host is read: columns and cells at hand, DuckDB beside them, what is damaged."""
