"""The DALI side: one graph that executes any plan, what feeds it, and the loader that runs it."""

from pipelines.decoding import Decoding
from pipelines.loader import Loader
from pipelines.probe import Probe

__all__ = ["Decoding", "Loader", "Probe"]
