"""The JSON objects that reports are written as; docs/schemas.md is made of these declarations."""

from typing import Annotated, TypedDict

from dali_fixres.runtime.environment import Environment
from dali_fixres.runtime.json_files import (
    AccuracyRow,
    DataConfigObject,
    Distribution,
    Fingerprint,
    MeasuredOn,
    Synthetic,
    Unreadable,
)

__all__ = [
    "ActivationsPart",
    "ActivationsRow",
    "AnalysisFile",
    "Baseline",
    "Cost",
    "CropSizes",
    "DryRunFile",
    "DryRunPass",
    "DryRunPhase",
    "DryRunTest",
    "Figures",
    "Gain",
    "GainRow",
    "ReportFile",
    "SizesPart",
    "TestCropSizes",
    "TrainCropSizes",
]


class Cost(TypedDict):
    """The cost of a stage."""

    seconds: Annotated[float, "s; wall time of steps and evaluations, loading included, start-up excluded"]
    num_images: Annotated[int | None, "images that went through the network, repeats counted; null if unknown"]
    area_px: Annotated[int | None, "pixels of these images; null if unknown"]


class Gain(TypedDict):
    """A difference of two top-1 accuracies."""

    points: Annotated[float, "percentage points; negative for a loss"]
    standard_error: Annotated[float, "percentage points, as if measured on independent images"]


class GainRow(Gain):
    """A gain and what brought it."""

    what: Annotated[str, "what changed, in words"]
    seconds: Annotated[float | None, "s; wall time of the stage that brought it; null if not recorded"]


class Baseline(TypedDict):
    """The network of `fixres --baseline`."""

    path: Annotated[str, "its run folder"]
    trained_at: Annotated[int, "pixels; its last training resolution"]
    rows: Annotated[list[AccuracyRow], "its accuracies, ascending by resolution"]
    training: Annotated[Cost | None, "its training; null if not recorded"]
    same_images: Annotated[bool, "whether it was trained on the same data"]
    same_machine: Annotated[bool, "whether it was trained on the same hardware"]


class Figures(TypedDict):
    """All that the report of `fixres` shows. Stages are named as in `costs`."""

    model: Annotated[str, "name"]
    data: Annotated[str, "path, or the name of the demo data"]
    synthetic: Synthetic
    checkpoint: Annotated[str | None, "the network given in place of training; null if it was trained here"]
    trained_at: Annotated[int, "pixels"]
    fixed_for: Annotated[int, "pixels"]
    best_before: Annotated[int, "pixels; the most accurate resolution before fine-tuning"]
    chosen: Annotated[bool, "whether `fixed_for` is the best of the sweep before (`--test-res best`)"]
    method: Annotated[str, "of fine-tuning"]
    before: Annotated[list[AccuracyRow], "the sweep before fine-tuning, ascending by resolution"]
    after: Annotated[list[AccuracyRow], "the same sweep after fine-tuning"]
    costs: Annotated[dict[str, Cost | None], "by stage, in order; null if not recorded"]
    gains: Annotated[list[GainRow], "what was gained by what"]
    gain_over_baseline: Annotated[Gain | None, "fine-tuned network minus baseline, at `fixed_for`"]
    baseline: Annotated[Baseline | None, "only with `--baseline`"]
    settings: Annotated[dict[str, str], "config.toml by stage"]
    environments: Annotated[dict[str, Environment], "by stage"]
    fingerprints: Annotated[dict[str, str], "of the data, by stage"]
    unreadable: Unreadable
    missing: Annotated[list[str], "what the report lacks because it was not recorded"]


class ReportFile(Figures):
    """`fixres --json` and report.json."""

    summary: Annotated[list[str], "the findings, in sentences"]


class CropSizes(TypedDict):
    """Apparent sizes in crops: pixels that an object as large as its image has in the network's input."""

    mean_px: Annotated[float, "pixels"]
    median_px: Annotated[float, "pixels"]
    histogram: Annotated[list[float], "0-1; share of images in each bin; up to 0.5 % lie above the last bin"]


class TrainCropSizes(CropSizes):
    """Apparent sizes in training crops."""

    train_res: Annotated[int, "pixels"]


class TestCropSizes(CropSizes):
    """Apparent sizes in test crops."""

    test_res: Annotated[int, "pixels"]
    crop_ratio: Annotated[float, "0-1; crop over the length the shorter side is resized to"]


class SizesPart(TypedDict):
    """`sizes` of analysis.json."""

    num_images: Annotated[int, "images whose crop boxes were drawn"]
    edges_px: Annotated[list[float], "pixels; edges of the bins of all its histograms"]
    train: Annotated[TrainCropSizes, "training crops"]
    test: Annotated[list[TestCropSizes], "test crops, ascending by resolution"]
    matching_res: Annotated[float, "pixels; test resolution whose mean size equals that of training"]
    matching_multiple: Annotated[int, "pixels; the multiple of 32 nearest to it"]


class ActivationsRow(TypedDict):
    """What reaches the classifier at one resolution."""

    res: Annotated[int, "pixels"]
    zeros: Annotated[float, "0-1; share of exact zeros"]
    mean: Annotated[float, "of all values"]
    quantiles: Annotated[dict[str, float], "of all values, by share"]
    fitted: Annotated[Distribution, "the distribution fitted"]
    histogram: Annotated[list[float], "0-1; share of values in each bin"]


class ActivationsPart(TypedDict):
    """`activations` of analysis.json."""

    classifier: Annotated[str, "the layer that they reach"]
    num_images: Annotated[int, "images run through the network at each resolution"]
    rectified: Annotated[bool, "whether none is negative; fits and histograms are then of the positive ones"]
    edges: Annotated[list[float], "edges of the bins of all its histograms"]
    train: Annotated[ActivationsRow, "at the training resolution"]
    test: Annotated[list[ActivationsRow], "at the test resolutions"]


class AnalysisFile(TypedDict):
    """`analyze --json` and analysis.json."""

    sizes: Annotated[SizesPart, "apparent sizes of objects"]
    activations: Annotated[ActivationsPart | None, "null without a network"]
    data_config: Annotated[DataConfigObject | None, "what images the network takes; null without one"]
    model: Annotated[str | None, "name; null without a network"]
    eval_precision: Annotated[str | None, "number format that it ran in; null without a network"]
    checkpoint: Annotated[str | None, "path; null without one"]
    synthetic: Synthetic
    fingerprint: Fingerprint
    environment: MeasuredOn


class DryRunPass(TypedDict):
    """Images that go through the network once before the first epoch, without training."""

    res: Annotated[int, "pixels"]
    images: Annotated[int, "number"]
    gmacs: Annotated[float, "10^9 multiply-accumulates per image"]


class DryRunPhase(TypedDict):
    """Epochs of one resolution and batch size, between two falls of the rate if it falls in steps."""

    epochs: Annotated[list[int], "first and last, counted from 1"]
    res: Annotated[int, "pixels"]
    global_batch: Annotated[int, "images of a step, over all processes"]
    steps: Annotated[int, "optimiser steps of these epochs"]
    first_lr: Annotated[float, "learning rate of the first step"]
    last_lr: Annotated[float, "learning rate of the last step"]
    images: Annotated[int, "images of these epochs"]
    gmacs: Annotated[
        float, "10^9 multiply-accumulates per image and forward pass; with cached features the classifier's"
    ]


class DryRunTest(TypedDict):
    """A resolution that is tested at."""

    test_res: Annotated[int, "pixels"]
    gmacs: Annotated[float, "10^9 multiply-accumulates per image"]


class DryRunFile(TypedDict):
    """`train --dry-run --json` and `finetune --dry-run --json`."""

    model: Annotated[str, "name"]
    num_classes: Annotated[int, "outputs"]
    parameters: Annotated[int, "of the network"]
    trained_parameters: Annotated[int, "those that train"]
    what_is_trained: Annotated[str, "in words"]
    processes: Annotated[int, "number"]
    passes: Annotated[list[DryRunPass], "before the first epoch"]
    phases: Annotated[list[DryRunPhase], "the epochs"]
    tests: Annotated[list[DryRunTest], "resolutions, ascending"]
    test_images: Annotated[int, "images of all evaluations together"]
