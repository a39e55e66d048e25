"""Autoregressive predictive coding (APC): a stack of GRUs trained to predict the frame n steps ahead.

Reference:
    Chung et al., An Unsupervised Autoregressive Model for Speech Representation Learning, Interspeech 2019,
    arXiv:1904.03240.
"""
