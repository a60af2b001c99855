"""What each batch will be, decided before anything is read: pure functions of seed, epoch, step, rank and world."""

from dali_fixres.plan.augmentation import AUGMENTATIONS, Augmentation, looks_of
from dali_fixres.plan.evaluate import EvaluationPlan
from dali_fixres.plan.random import step_seed
from dali_fixres.plan.train import TrainPlan

__all__ = ["AUGMENTATIONS", "Augmentation", "EvaluationPlan", "TrainPlan", "looks_of", "step_seed"]
