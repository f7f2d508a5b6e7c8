"""Owns every byte on disk: event declarations, the ledger, snapshots. Imports nothing of the other rooms."""
