"""The DALI side: one graph that executes any plan, what feeds it, and the loader that runs it."""

from pipelines.loader import Loader

__all__ = ["Loader"]
