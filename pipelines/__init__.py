"""Resolution-aware image batches from NVIDIA DALI, for any PyTorch loop.

Files → `Dataset` → plan (pure NumPy) → `BatchPlan` → graph (DALI) → `Loader` → `Batch`.

    from pipelines import AUGMENTATIONS, Loader, Schedule, TrainPlan, open_dataset

    dataset = open_dataset("images")
    plan = TrainPlan(dataset, AUGMENTATIONS["train"], Schedule.parse("96@0,128@8"), batch_size=64)
    with Loader(dataset, max_batch_size=64, device="cuda") as loader:
        for epoch in range(16):
            for batch in loader.run(plan.epoch(epoch)):
                loss = criterion(network(batch.images), batch.labels)

`Loader.run` stops at an image that cannot be read; `ReadableBatches` skips it. Names are imported on first use:
torch and DALI take seconds to load, and listing a data set needs neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.batch import Batch
    from pipelines.dataset import TRAIN, VAL, Dataset, open_dataset
    from pipelines.errors import ConfigError, DataError, UnreadableError, UserError
    from pipelines.loader import Loader
    from pipelines.plan import AUGMENTATIONS, Augmentation, BatchPlan, EvalPlan, TrainPlan
    from pipelines.plan.colour import IMAGENET, Normalisation
    from pipelines.processes import loader_threads, usable_cores
    from pipelines.readable import ReadableBatches, SkippedImages
    from pipelines.resolution import Resolution, Schedule, parse_resolutions
    from pipelines.storage.cache_folder import cache_folder

__all__ = [
    "AUGMENTATIONS",
    "IMAGENET",
    "TRAIN",
    "VAL",
    "Augmentation",
    "Batch",
    "BatchPlan",
    "ConfigError",
    "DataError",
    "Dataset",
    "EvalPlan",
    "Loader",
    "Normalisation",
    "ReadableBatches",
    "Resolution",
    "Schedule",
    "SkippedImages",
    "TrainPlan",
    "UnreadableError",
    "UserError",
    "cache_folder",
    "loader_threads",
    "open_dataset",
    "parse_resolutions",
    "usable_cores",
]

_MODULES = {
    "batch": ("Batch",),
    "dataset": ("TRAIN", "VAL", "Dataset", "open_dataset"),
    "errors": ("ConfigError", "DataError", "UnreadableError", "UserError"),
    "loader": ("Loader",),
    "plan": ("AUGMENTATIONS", "Augmentation", "BatchPlan", "EvalPlan", "TrainPlan"),
    "plan.colour": ("IMAGENET", "Normalisation"),
    "processes": ("loader_threads", "usable_cores"),
    "readable": ("ReadableBatches", "SkippedImages"),
    "resolution": ("Resolution", "Schedule", "parse_resolutions"),
    "storage.cache_folder": ("cache_folder",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
