"""What a run could show, before it: the size of its test set, and the differences that are detectable there."""
