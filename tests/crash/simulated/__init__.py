"""The ledger's protocol on a simulated disk that forgets whatever was not synced: `python -m tests.crash.simulated`."""
