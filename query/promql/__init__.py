"""PromQL over the ledger's history: what a dashboard asks of Prometheus, answered from what was recorded."""
