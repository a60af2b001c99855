"""A network at all settings of a sweep: resolutions, crop ratios, views."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dali_fixres.evaluation.evaluate import Evaluator, collect, count_answers
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.evaluation.predictions import Outputs, merge, save_arrays
from dali_fixres.evaluation.real import RealLabels
from dali_fixres.models import DataConfig, find_head
from dali_fixres.models.class_map import ClassMap
from dali_fixres.models.head import count_gmacs, run_once
from dali_fixres.runtime.skipped import share_skipped
from pipelines.plan.views import Setting

__all__ = ["Sweep", "costs_of", "folder_of"]


def costs_of(network: nn.Module, settings: tuple[Setting, ...]) -> dict[Setting, float]:
    """Try a network at all settings before the first image is tested, and count what each costs, in GMACs an image.

    Raises:
        ModelError: If it cannot take images of one of the sizes; the message names some that it can.
    """
    by_resolution = {}
    for resolution in {setting.resolution for setting in settings}:
        run_once(network, resolution)
        by_resolution[resolution] = count_gmacs(network, resolution)
    return {setting: setting.num_views * by_resolution[setting.resolution] for setting in settings}


def folder_of(folder: Path, setting: Setting, settings: tuple[Setting, ...]) -> Path:
    """Return where the outputs of a setting go: one of several has a folder of its own."""
    return folder if len(settings) == 1 else folder / setting.name


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Settings to test at, and how predictions are counted.

    Attributes:
        evaluator: The network and the test images.
        data_config: What images the network takes.
        costs: Of each setting, in its order, GMACs for an image.
        class_map: Outputs of the data's classes.
        only_mapped: Whether no other output may be the answer.
        real: ImageNet-ReaL's labels, if they are to be counted as well.
    """

    evaluator: Evaluator
    data_config: DataConfig
    costs: dict[Setting, float]
    class_map: ClassMap
    only_mapped: bool
    real: RealLabels | None

    def run(self, save_to: Path | None, *, saves: bool) -> list[Accuracy]:
        """Test at all settings.

        Args:
            save_to: Folder for the outputs, in the process that writes.
            saves: Whether any process does.
        """
        world, settings, results = self.evaluator.world, tuple(self.costs), []
        for setting in settings:
            accuracy, outputs = self._test(setting, saves=saves)
            results.append(accuracy)
            if saves and outputs is not None:
                shares = world.gather_to_main(outputs)
                if save_to is not None:
                    save_arrays(folder_of(save_to, setting, settings), merge(shares))
            share_skipped(self.evaluator.batches.skipped, world)
        return results

    def _test(self, setting: Setting, *, saves: bool) -> tuple[Accuracy, Outputs | None]:
        """Test at one setting; outputs are kept only where counting on the way is not enough."""
        one, resolution, num_views = self.evaluator, setting.resolution, setting.num_views
        plans = [replace(one.plan, augmentation=view) for view in self.data_config.views(setting.views)]
        views = [one.batches.evaluation(plan, resolution) for plan in plans]
        label = f"testing at {resolution.crop_px} px{'' if num_views == 1 else f' ({setting.views})'}"
        outputs, counts = None, torch.zeros(5, dtype=torch.int64)
        started = time.perf_counter()
        with one.reporter.bar(label, num_views * one.plan.num_rounds) as bar:
            forward = one.forward(one.plan.num_rounds, bar)
            if saves or num_views > 1 or self.real is not None or not self.class_map.is_plain:
                classifier = find_head(one.network, resolution).classifier if saves else None
                outputs = collect(forward, views, one.plan, self.class_map.num_outputs, classifier)
                counts = outputs.counts(self.class_map, only_mapped=self.only_mapped, real=self.real)
            else:
                counts[:3] = count_answers(forward, views[0])
        accuracy = one.total(counts[:3], resolution, started)
        num_real_top1, num_real_images = one.world.sum(counts[3:]).tolist()
        accuracy = replace(
            accuracy,
            views=setting.views,
            gmacs=round(self.costs[setting], 6),
            num_real_top1=num_real_top1,
            num_real_images=num_real_images,
        )
        return accuracy, outputs
