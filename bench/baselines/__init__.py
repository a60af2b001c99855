"""Loaders of others, each in a process of its own, see `bench.baselines.run`.

Each module here is one of them, run as ``python -m bench.baselines.NAME`` by an environment that has it. All do the
same: random resized crop, flip and normalisation into float32 batches on the CPU, from the same files.
docs/performance.md has the commands that make the environments of FFCV and SPDL.
"""
