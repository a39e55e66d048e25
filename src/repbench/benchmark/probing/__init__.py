"""Probes on frozen features: batches, training, prediction, and saved probes."""
