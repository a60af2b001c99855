"""What `evaluate` runs: a network at all settings of a sweep, as one stream of plans through one graph."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dali_fixres.evaluation.class_map import ClassMap
from dali_fixres.evaluation.evaluate import collect, evaluate, total
from dali_fixres.evaluation.metrics import Accuracy
from dali_fixres.evaluation.predictions import Outputs, merge, save_arrays
from dali_fixres.evaluation.real import RealLabels
from dali_fixres.models import find_head
from dali_fixres.models.head import count_gmacs, run_once
from dali_fixres.runtime.distributed import World
from dali_fixres.runtime.progress import Reporter
from dali_fixres.runtime.signals import StopSignals
from dali_fixres.training.stream import Stream, Test
from dali_fixres.training.unreadable import Unreadable
from pipelines import Loader
from pipelines.plan import EvalPlan, views_of
from pipelines.plan.views import Setting

__all__ = ["Sweep", "costs_of", "folder_of"]


def costs_of(network: nn.Module, settings: tuple[Setting, ...]) -> dict[Setting, float]:
    """Try a network at all settings before the first image is tested, and count what each costs, in GMACs.

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
    """All that is tested, and what with.

    Attributes:
        network: On its device.
        plan: Of the test images.
        costs: Of each setting, in its order, GMACs for an image.
        class_map: Outputs of the data's classes.
        only_mapped: Whether no other output may be the answer.
        real: ImageNet-ReaL's labels, if they are to be counted as well.
        unreadable: Images that are passed over.
        world: All processes.
        orders: May ask to stop; None where signals end the process.
        reporter: Where progress goes.
    """

    network: nn.Module
    plan: EvalPlan
    costs: dict[Setting, float]
    class_map: ClassMap
    only_mapped: bool
    real: RealLabels | None
    unreadable: Unreadable
    world: World
    stop_signals: StopSignals | None
    reporter: Reporter

    def run(self, loader: Loader, save_to: Path | None, *, saves: bool) -> list[Accuracy]:
        """Test at all settings.

        Args:
            loader: Executes the plans.
            save_to: Folder for the outputs, in the process that writes.
            saves: Whether any process does.
        """
        settings = tuple(self.costs)
        parts = [
            Test(replace(self.plan, augmentation=view), setting.resolution)
            for setting in settings
            for view in views_of(setting.views)
        ]
        stream = Stream(loader, parts, self.unreadable)
        results = []
        for setting in settings:
            accuracy, outputs = self._test(setting, stream, saves=saves)
            results.append(accuracy)
            if saves and outputs is not None:
                shares = self.world.gather_to_main(outputs)
                if save_to is not None:
                    save_arrays(folder_of(save_to, setting, settings), merge(shares))
            stream.share(self.world)
        return results

    def _test(self, setting: Setting, stream: Stream, *, saves: bool) -> tuple[Accuracy, Outputs | None]:
        """Test at one setting; answers are kept only where counting them on the way is not enough."""
        classifier = find_head(self.network, setting.resolution).classifier if saves else None
        rounds, num_views = self.plan.num_rounds, setting.num_views
        label = f"testing at {setting.resolution.crop_px} px{'' if num_views == 1 else f' ({setting.views})'}"
        outputs, counts = None, torch.zeros(5, dtype=torch.int64)
        started = time.perf_counter()
        with self.reporter.bar(label, num_views * rounds) as bar:
            if saves or num_views > 1 or self.real is not None or not self.class_map.is_plain:
                views = [stream.part() for _ in range(num_views)]
                outputs = collect(
                    self.network, views, self.plan, self.class_map.num_outputs, classifier, bar, self.stop_signals
                )
                counts = outputs.counts(self.class_map, only_mapped=self.only_mapped, real=self.real)
            else:
                counts[:3] = evaluate(self.network, stream.part(), rounds, bar, self.stop_signals)
        readable = replace(self.plan, unreadable=self.unreadable.rows)
        accuracy = total(counts[:3], readable, setting.resolution, self.world, started)
        num_real_top1, num_real_images = self.world.sum(counts[3:]).tolist()
        accuracy = replace(
            accuracy,
            views=setting.views,
            gmacs=round(self.costs[setting], 6),
            num_real_top1=num_real_top1,
            num_real_images=num_real_images,
        )
        return accuracy, outputs
