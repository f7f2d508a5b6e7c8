"""Other people's SQL: what may run, and the process that runs it and can touch nothing."""
