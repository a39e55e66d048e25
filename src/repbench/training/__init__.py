"""Shared by pre-training and fine-tuning: loop, batches, optimizers, several processes, random states and signals."""
