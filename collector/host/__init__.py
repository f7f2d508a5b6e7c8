"""The host: its CPUs, memory and devices."""
