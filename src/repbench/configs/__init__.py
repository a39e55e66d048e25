"""Shipped presets, and the strict loader that reads them and yours."""
