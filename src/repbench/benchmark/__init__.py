"""The benchmark: features, probes, fine-tuning, scores, records, reports, sweeps and leaderboards."""
