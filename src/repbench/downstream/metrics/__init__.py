"""Metrics as pure functions of (reference, estimated): counts pooled, divided once."""
