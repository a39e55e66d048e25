"""`repbench compare`: the layers of two models with each other, with mel, and with phones and words."""
