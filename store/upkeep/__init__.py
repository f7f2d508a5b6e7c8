"""What a ledger needs done to it now and then: sealing, merging, retention, reading again."""
