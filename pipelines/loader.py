"""The loader: runs the graph over a stream of plans and hands the batches to PyTorch without a copy.

It is public and knows nothing of the trainer: put it under any PyTorch loop.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils.dlpack import from_dlpack

from pipelines.batch import Batch
from pipelines.dali.decodability import DecodabilityCheck, first_cause
from pipelines.dali.decoding import WHOLE, Decoding, decodes_regions
from pipelines.dali.graph import build_graph
from pipelines.dali.inputs import GraphInputs, graph_inputs
from pipelines.dataset import Dataset
from pipelines.errors import ConfigError, UnreadableError
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.colour import IMAGENET, Normalisation

__all__ = ["Loader"]


class Loader:
    """Executes plans. Build it once; every resolution, stage and augmentation is just another plan.

    On a CPU its threads give way to the caller's, by a niceness of 10. Call `dali_fixres.runtime.system.prepare_host` before
    torch is loaded: by default torch's idle threads spin for milliseconds, on cores that the loader then hardly gets.

    Example:
        ::

            with Loader(data.index, max_batch_size=64) as loader:
                for batch in loader.run(plan.epoch(0)):
                    loss = criterion(network(batch.images), batch.labels)

    Args:
        index: The data set that plans refer to.
        max_batch_size: No plan may be larger.
        device: Where batches are wanted: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        num_threads: CPU threads that read and decode.
        prefetch: Batches that are made ahead of the one in use.
        normalisation: Mean and standard deviation taken off.
        decoding: How a GPU decodes; a CPU always decodes just what the crop box needs.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        max_batch_size: int,
        device: str | torch.device = "cpu",
        num_threads: int = 2,
        prefetch: int = 2,
        normalisation: Normalisation = IMAGENET,
        decoding: Decoding = WHOLE,
    ) -> None:
        self._dataset = dataset
        self._max_batch_size = max_batch_size
        self._device = torch.device(device)
        self._normalisation = normalisation
        self._decode_window = decodes_regions(decoding if self._device.type == "cuda" else None)
        self._num_threads = num_threads
        self._decodability: DecodabilityCheck | None = None
        self._plans: Iterator[BatchPlan] = iter(())
        self._in_flight: deque[BatchPlan] = deque()
        self._pipeline: Any = build_graph(
            self._next_inputs,
            device_id=_gpu_number(self._device) if self._device.type == "cuda" else None,
            decoding=decoding,
            max_batch_size=max_batch_size,
            num_threads=num_threads,
            prefetch=prefetch,
            normalisation=normalisation,
            from_shards=dataset.in_shards,
        )

    def run(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """Yield the batches that `plans` order, in their order.

        Plans are drawn a few batches ahead of what is yielded. One stream of plans may run through several
        epochs and evaluations: then the graph never runs dry between them. A second call ends the first.

        Raises:
            UnreadableError: If images of a batch cannot be read or decoded; it says which, and what is wrong with
                each. The batches before have been yielded; run plans without these images to go on.
            ConfigError: If a plan is larger than `max_batch_size`.
            ValueError: If the loader is closed.
        """
        if self._pipeline is None:
            raise ValueError("this loader is closed; build another one")
        self._drain()
        self._plans = iter(plans)
        return self._batches(self._plans)

    def unreadable(self, plans: Iterable[BatchPlan]) -> dict[int, tuple[Path, str]]:
        """Return the images that these plans would fail over: path and what is wrong, by row of the data set.

        Each is decoded by itself on the CPU, the same region of it as in the batch.

        Raises:
            DataError: If the storage has failed.
        """
        if self._decodability is None:
            self._decodability = DecodabilityCheck(self._dataset, self._num_threads)
        reasons: dict[int, str] = {}
        for plan in plans:
            inputs = self._inputs(plan)
            reasons |= self._decodability.regions(plan.ids, plan.copy_ids, inputs.decode_start, inputs.decode_end)
        return {row: (self._dataset.path(row), reason) for row, reason in reasons.items()}

    def _batches(self, plans: Iterator[BatchPlan]) -> Iterator[Batch]:
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        while self._plans is plans:
            try:
                (outputs,) = self._pipeline.run(stream)
            except StopIteration:
                return
            except RuntimeError as error:
                raise self._explained(error) from error
            yield self._batch(self._in_flight.popleft(), outputs)

    def _batch(self, plan: BatchPlan, outputs: Any) -> Batch:
        images = from_dlpack(outputs.as_tensor()).permute(0, 3, 1, 2)
        labels = torch.from_numpy(self._dataset.labels[plan.ids])
        if self._device.type == "cuda":
            labels = labels.pin_memory().to(self._device, non_blocking=True)
        return Batch(images, labels, plan.ids, plan.resolution)

    def _next_inputs(self) -> tuple[Any, ...]:
        """Give DALI the next batch's inputs; called on the thread that runs the pipeline, in order."""
        plan = next(self._plans)
        if len(plan) > self._max_batch_size:
            raise ConfigError(f"a plan orders {len(plan)} images, the loader takes {self._max_batch_size} at most")
        self._in_flight.append(plan)
        inputs = self._inputs(plan)
        return inputs if self._decode_window else inputs.without_regions()

    def _inputs(self, plan: BatchPlan) -> GraphInputs:
        return graph_inputs(plan, self._dataset, self._normalisation, decode_region=self._decode_window)

    def _explained(self, error: RuntimeError) -> Exception:
        """Find out which images the failed batch has failed over."""
        plan = self._in_flight[0]
        found = self.unreadable([plan])
        if not found and self._device.type == "cuda" and (row := refused_row(str(error), plan)) is not None:
            reason = f"the GPU's decoder refuses it, though the CPU's does not: {first_cause(str(error)) or error}"
            found = {row: (self._dataset.path(row), reason)}
        if not found:
            error.add_note(f"each of the {len(plan)} images of the batch can be decoded by itself on the CPU")
            return error
        return UnreadableError(found)

    def _drain(self) -> None:
        """Let the graph finish what an abandoned run has ordered, so that the next run starts afresh."""
        self._plans = iter(())
        # Each batch in flight may fail, over a broken image that nobody wants any more; then the run has ended.
        for _ in range(len(self._in_flight) + 1):
            try:
                while True:
                    self._pipeline.run()
            except StopIteration:
                break
            except RuntimeError:
                continue
        self._in_flight.clear()
        self._pipeline.reset()

    def close(self) -> None:
        """Free the graph's threads and memory; batches already handed over stay valid."""
        if self._pipeline is not None:
            try:
                self._drain()
            finally:
                self._pipeline = None

    def __enter__(self) -> Self:
        """Return the loader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def refused_row(message: str, plan: BatchPlan) -> int | None:
    """Return the row of the data set that a message of DALI's decoder is about, if it says which image it was."""
    found = re.search(r"Failed to decode sample #(\d+)", message)
    if found is None or int(found[1]) >= len(plan):
        return None
    return int(plan.ids[int(found[1])])


def _gpu_number(device: torch.device) -> int:
    """Return which GPU a device is; "cuda" alone is the current one."""
    return torch.cuda.current_device() if device.index is None else device.index
