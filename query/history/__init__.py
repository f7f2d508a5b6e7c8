"""How a metric went, and how that differs from other times: trends, comparisons, anomalies, forecasts."""
