"""Inference servers, by what they tell Prometheus."""
