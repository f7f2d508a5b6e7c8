"""What the samples were per minute and per hour, as projections of the events."""
