"""Presets, and the strict loader of configurations."""
