"""Training: setup, the loop, resuming."""

from dali_fixres.training.loop import train
from dali_fixres.training.optimizer import LearningRate, build_optimizer, build_scaler
from dali_fixres.training.step import TrainingSetup, train_step

__all__ = ["LearningRate", "TrainingSetup", "build_optimizer", "build_scaler", "train", "train_step"]
