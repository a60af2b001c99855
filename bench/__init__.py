"""Benchmarks: one module a question, run as ``python -m bench.throughput``.

Baselines import this package in environments of their own, so nothing here needs torch.
"""

from dali_fixres.runtime import prepare_host

prepare_host()  # as the command line does, before torch is loaded
