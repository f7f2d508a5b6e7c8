"""What there is now: live state, processes, health, availability, the recorder itself."""
