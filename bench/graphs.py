"""Parts of the loader's one graph, run on their own: what it costs to read, to decode, to resize."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from nvidia.dali.pipeline import pipeline_def

from dali_fixres.colour import IMAGENET
from pipelines import graph
from pipelines.decoding import WHOLE, Decoding, takes_regions
from pipelines.feed import GraphInputs

__all__ = ["OPERATORS", "GraphPart", "Operator"]

Operator = Literal["read", "decode", "resize", "normalise"]

OPERATORS: tuple[Operator, ...] = ("read", "decode", "resize", "normalise")
"""In the graph's order."""


class GraphPart:
    """The loader's graph up to one of its operators, for batches without colour jitter.

    Args:
        last: The operator that it ends with.
        in_shards: Whether it is given encoded pictures instead of paths.
        batch_size: No batch is larger.
        num_threads: CPU threads that read and decode.
        device: Where pictures are decoded, as in the loader.
        decoding: How a GPU decodes, as in the loader.

    Attributes:
        decode_window: Whether the inputs are to name the window's surroundings or whole pictures.
    """

    def __init__(
        self,
        last: Operator,
        *,
        in_shards: bool,
        batch_size: int,
        num_threads: int,
        device: torch.device,
        decoding: Decoding = WHOLE,
    ) -> None:
        on_gpu = device.type == "cuda"
        gpu = decoding if on_gpu else None
        self.decode_window = takes_regions(gpu)
        self._inputs: Iterator[GraphInputs] = iter(())

        def define() -> Any:
            files, *others = graph.inputs(self._next_inputs)
            start, end, window_start, window_end, size, _, _ = others
            results = [graph.read(files, in_shards)]
            results.append(graph.decoded(results[-1], start, end, gpu))
            results.append(graph.resized(results[-1], window_start, window_end, size))
            results.append(graph.normalised(results[-1], IMAGENET, on_gpu))
            # DALI leaves out what leads to no output, and warns of inputs that do not.
            return results[OPERATORS.index(last)], *others

        settings: Any = {
            "batch_size": batch_size,
            "num_threads": num_threads,
            "device_id": (device.index or 0) if on_gpu else None,
        }
        pipeline: Any = pipeline_def(define)(**settings)
        graph.build(pipeline, on_gpu=on_gpu)
        self._pipeline = pipeline

    def run(self, inputs: Iterable[GraphInputs]) -> Iterator[Any]:
        """Yield what the last operator makes of each batch; take all of them before another run."""
        self._inputs = iter(inputs)
        while True:
            try:
                outputs, *_ = self._pipeline.run()
            except StopIteration:
                self._pipeline.reset()
                return
            yield outputs

    def _next_inputs(self) -> GraphInputs:
        return next(self._inputs)
