"""Downstream tasks: their contract, problems, heads and metrics."""
