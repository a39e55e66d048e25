"""Which utterances are there, and what is true of them?"""
