"""What pre-training and fine-tuning share: batches, optimizers, several processes, random states and signals."""
