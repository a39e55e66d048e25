"""Mockingjay: a Transformer encoder trained to reconstruct masked frames of a spectrogram.

Reference:
    Liu et al., Mockingjay: Unsupervised Speech Representation Learning with Deep Bidirectional Transformer Encoders,
    ICASSP 2020, arXiv:1910.12638.
"""
