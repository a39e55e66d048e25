"""The steps of one command from request to record: probing, fine-tuning, scoring a saved probe, pre-training."""
