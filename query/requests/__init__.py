"""Requests: how many and how long, which were slow, and why."""
