"""The loader: runs the graph over plans and hands the batches to PyTorch without a copy.

It is independent of the trainer: any PyTorch loop can iterate over it.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import torch
from torch.utils.dlpack import from_dlpack

from pipelines.batch import Batch
from pipelines.dali.choose_decoder import Decode, Decoder, Timing, faster_decoder, machine, time_decoders
from pipelines.dali.decodability import DecodabilityCheck
from pipelines.dali.fused.machine_code import Entries, entries
from pipelines.dali.graph import build, define_graph
from pipelines.dali.inputs import decode_regions, fused_inputs, operator_inputs
from pipelines.dali.messages import first_cause, refused_sample
from pipelines.dataset import Dataset
from pipelines.errors import ConfigError, RunError, UnreadableError
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.colour import BYTES, IMAGENET, Normalisation
from pipelines.processes import loader_threads

__all__ = ["Loader", "Resize"]

Resize: TypeAlias = Literal["auto", "fused", "dali"]
"""What makes crops of decoded images on a CPU, see `Loader`."""


class Loader:
    """Executes plans. Build it once; every resolution, stage and augmentation is just another plan.

    On a CPU its threads run at a lower priority than the caller's (niceness 10), which is best for training.

    Example:
        ::

            with Loader(dataset, max_batch_size=64, device="cuda") as loader:
                for batch in loader.run(plan.epoch(0)):
                    loss = criterion(network(batch.images), batch.labels)

    Args:
        dataset: The data set that plans refer to.
        max_batch_size: No plan may be larger.
        device: Where batches are wanted: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        num_threads: CPU threads that read and decode; one more than usable cores if left out.
        prefetch: Batches that are made ahead of the one in use.
        normalisation: Mean that is subtracted and standard deviation that is divided by; None for images in
            bytes, whose colours are not jittered.
        decode: For batches on a GPU: ``"gpu"`` decodes whole images there, ``"cpu"`` decodes just the regions that
            crops need, by CPU threads. ``"auto"`` takes the faster one: both are timed, for a few seconds altogether,
            when a loader is first built for a data set on a machine; the cache folder keeps the answer.
        resize: For batches on a CPU: ``"fused"`` resizes, mirrors, colours and normalises in one compiled operator,
            ``"dali"`` in operators of DALI. ``"auto"`` is ``"fused"`` where it can be compiled; the first time on a
            machine that takes a few seconds, and the cache folder keeps the result. On a GPU there is only ``"dali"``.
        warn: Receives a line if a decoder fails while it is timed, or if nothing can be compiled.

    Attributes:
        decode: The decoder in use, ``"cpu"`` or ``"gpu"``.
        resize: The operators in use, ``"fused"`` or ``"dali"``.

    Raises:
        ConfigError: If the GPU is to decode batches for a CPU, or the compiled operator to make batches for a GPU.
        RunError: If neither decoder works, or ``"fused"`` cannot be compiled.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        max_batch_size: int,
        device: str | torch.device = "cpu",
        num_threads: int | None = None,
        prefetch: int = 2,
        normalisation: Normalisation | None = IMAGENET,
        decode: Decode = "auto",
        resize: Resize = "auto",
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        self._dataset = dataset
        self._max_batch_size = max_batch_size
        self._device = torch.device(device)
        self._normalisation = normalisation
        self._num_threads = num_threads or loader_threads()
        self.decode: Decoder = self._decoder(decode, warn)
        compiled = self._compiled(resize, warn)
        self.resize: Resize = "dali" if compiled is None else "fused"
        self._decodability: DecodabilityCheck | None = None
        self._plans: Iterator[BatchPlan] = iter(())
        # With a batch's plan, what the graph reads without a copy.
        self._in_flight: deque[tuple[BatchPlan, object]] = deque()
        self._pipeline: Any = define_graph(
            self._next_inputs,
            device_id=_gpu_number(self._device) if self._device.type == "cuda" else None,
            decode=self.decode,
            max_batch_size=max_batch_size,
            num_threads=self._num_threads,
            prefetch=prefetch,
            normalisation=normalisation,
            from_shards=dataset.in_shards,
            compiled=compiled,
        )
        build(self._pipeline, on_gpu=self._device.type == "cuda")

    def run(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """Yield one batch for each plan, in order.

        Plans are drawn a few batches ahead of what is yielded, and may be endless. A second call ends the first,
        which then raises RuntimeError.

        Raises:
            UnreadableError: If images of a batch cannot be read or decoded, with the reason for each. The batches
                before have been yielded; to continue, run plans without these images.
            ConfigError: If a plan is larger than `max_batch_size`.
            ValueError: If the loader is closed.
        """
        if self._pipeline is None:
            raise ValueError("this loader is closed; build another one")
        self._drain()
        self._plans = iter(plans)
        return self._batches(self._plans)

    def unreadable(self, plans: Iterable[BatchPlan]) -> dict[int, tuple[Path, str]]:
        """Return the images of plans that cannot be decoded: path and reason, by row of the data set.

        Each is decoded by itself on the CPU, in the same region as for the batch.

        Raises:
            DataError: If the storage has failed.
        """
        if self._decodability is None:
            self._decodability = DecodabilityCheck(self._dataset, self._num_threads)
        reasons: dict[int, str] = {}
        for plan in plans:
            region = decode_regions(plan, self._dataset)
            reasons |= self._decodability.regions(plan.ids, plan.copy_ids, region.start, region.end)
        return {row: (self._dataset.path(row), reason) for row, reason in reasons.items()}

    def _decoder(self, decode: Decode, warn: Callable[[str], None]) -> Decoder:
        """Return the decoder: for ``"auto"``, where batches are wanted on a GPU, the faster one."""
        if self._device.type != "cuda":
            if decode == "gpu":
                raise ConfigError(f"decode 'gpu' needs batches on a GPU, but the device is {self._device}")
            return "cpu"
        if decode != "auto":
            return decode
        size, threads = self._max_batch_size, self._num_threads

        def loader_of(decoder: Decoder) -> Loader:
            return Loader(self._dataset, max_batch_size=size, device=self._device, num_threads=threads, decode=decoder)

        def time_both() -> Timing:
            return time_decoders(self._dataset, size, loader_of, partial(torch.cuda.synchronize, self._device))

        here = machine(torch.cuda.get_device_name(self._device), threads)
        return faster_decoder({**here, "data": self._dataset.fingerprint}, time_both, warn)

    def _compiled(self, resize: Resize, warn: Callable[[str], None]) -> Entries | None:
        """Return the compiled operator, or None where DALI's are to do its work."""
        if self._device.type == "cuda":
            if resize == "fused":
                raise ConfigError(f"resize 'fused' is for batches on a CPU, but the device is {self._device}")
            return None
        if resize == "dali":
            return None
        found = entries()
        if not isinstance(found, str):
            return found
        if resize == "fused":
            raise RunError(f"the operator that makes crops on a CPU cannot be compiled: {found}")
        warn(f"the operator that makes crops on a CPU cannot be compiled ({found}); DALI's take over, which are slower")
        return None

    def _batches(self, plans: Iterator[BatchPlan]) -> Iterator[Batch]:
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        while True:
            if self._plans is not plans:
                raise RuntimeError("another run of this loader has begun, or it is closed; this run has ended")
            try:
                (outputs,) = self._pipeline.run(stream)
            except StopIteration:
                return
            except RuntimeError as error:
                raise self._explained(error) from error
            plan, _ = self._in_flight.popleft()
            yield self._batch(plan, outputs)

    def _batch(self, plan: BatchPlan, outputs: Any) -> Batch:
        images = from_dlpack(outputs.as_tensor()).permute(0, 3, 1, 2)
        labels = torch.from_numpy(self._dataset.labels[plan.ids])
        if self._device.type == "cuda":
            labels = labels.pin_memory().to(self._device, non_blocking=True)
        return Batch(images, labels, plan.ids, plan.resolution)

    def _next_inputs(self) -> tuple[Any, ...]:
        """Return the next batch's inputs to DALI, which calls this in order, on the thread that runs the pipeline."""
        plan = next(self._plans)
        if len(plan) > self._max_batch_size:
            raise ConfigError(f"a plan has {len(plan)} images, but max_batch_size is {self._max_batch_size}")
        inputs = self._inputs(plan)
        self._in_flight.append((plan, inputs))
        return inputs

    def _inputs(self, plan: BatchPlan) -> tuple[Any, ...]:
        if self._normalisation is None:
            plan = replace(plan, jitter=None)
        normalisation = self._normalisation or BYTES
        if self.resize == "fused":
            return fused_inputs(plan, self._dataset, normalisation)
        inputs = operator_inputs(plan, self._dataset, normalisation, decode_region=self.decode == "cpu")
        return inputs if self.decode == "cpu" else inputs.without_regions()

    def _explained(self, error: RuntimeError) -> Exception:
        """Return the error that names the images because of which a batch has failed."""
        plan, _ = self._in_flight[0]
        found = self.unreadable([plan])
        if not found and self.decode == "gpu" and (place := refused_sample(str(error), len(plan))) is not None:
            row = int(plan.ids[place])
            reason = f"the GPU's decoder refuses it, though the CPU's does not: {first_cause(str(error)) or error}"
            found = {row: (self._dataset.path(row), reason)}
        if not found:
            error.add_note(f"each of the {len(plan)} images of the batch can be decoded by itself on the CPU")
            return error
        return UnreadableError(found)

    def _drain(self) -> None:
        """Let the graph finish the batches in flight of an abandoned run, so that the next run starts afresh."""
        self._plans = iter(())
        # Each batch in flight may fail because of a broken image; nobody waits for it any more.
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


def _gpu_number(device: torch.device) -> int:
    """Return which GPU a device is; "cuda" alone is the current one."""
    return torch.cuda.current_device() if device.index is None else device.index
