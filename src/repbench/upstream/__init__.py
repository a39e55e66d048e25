"""Models: the contract, front ends, Mockingjay and APC, and adapters for models of other libraries."""
