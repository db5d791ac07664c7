"""Where plain pytorch-lightning and torchmetrics go wrong, beside the same figures of truesweep.

    python -m benchmarks.traps [NAME]... [--write docs/traps.md]

Both stacks see the same samples, start from the same weights and run on one CPU thread a rank. The
stock one is what its documentation shows (`stock.py`); ours are the commands that a user types.
"""
