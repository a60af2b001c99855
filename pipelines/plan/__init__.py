"""What each batch is, decided before anything is read: pure functions of seed, epoch, step, rank and world size."""

from pipelines.plan.augmentation import AUGMENTATIONS, Augmentation, views_of
from pipelines.plan.batch_plan import BatchPlan
from pipelines.plan.evaluate import EvalPlan
from pipelines.plan.random import step_seed
from pipelines.plan.train import TrainPlan

__all__ = ["AUGMENTATIONS", "Augmentation", "BatchPlan", "EvalPlan", "TrainPlan", "step_seed", "views_of"]
