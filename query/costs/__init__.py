"""What energy went into, and what was lost: to throttling, idling, leaks and stragglers."""
