"""Autoregressive predictive coding: a stack of GRUs that learns by telling a frame n steps ahead.

Reference:
    Chung et al., An Unsupervised Autoregressive Model for Speech Representation Learning, Interspeech 2019,
    arXiv:1904.03240.
"""
