"""The labelled utterances of a run: splits, targets, the scoring grid, and shuffled labels for the control."""
