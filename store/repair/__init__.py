"""What is done when something is not as it should be: judged, set aside, adopted, restored."""
