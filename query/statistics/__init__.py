"""Statistics that more than one analysis uses, by ranks and medians."""
