"""The record of a run: its schema, its verification, and the table that a run prints."""
