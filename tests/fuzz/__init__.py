"""Mutated inputs to every reader of the package: `python -m tests.fuzz`, or `make fuzz`."""
