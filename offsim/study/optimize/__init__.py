"""The error bound of each place that gives the least latency within a budget of accuracy."""
