"""Turns events into answers, as typed results."""
