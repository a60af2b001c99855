"""The JSON objects that commands write for other programs; docs/schemas.md is made of these declarations."""

from typing import Annotated, NotRequired, TypedDict

from dali_fixres.runtime.environment import Environment

__all__ = [
    "AccuracyRow",
    "Copies",
    "DataConfigObject",
    "DecodeObject",
    "Distribution",
    "DoctorEnvironment",
    "DoctorFile",
    "EpochRecord",
    "EvaluateFile",
    "EvaluationRecord",
    "FinetuneFile",
    "Fingerprint",
    "Fit",
    "Fits",
    "IndexFile",
    "LeftOutRow",
    "MeasuredOn",
    "OutputsFile",
    "PassRecord",
    "PrecisionRow",
    "Split",
    "Synthetic",
    "TrainFile",
    "Unreadable",
    "VerifyFile",
]

Synthetic = Annotated[bool, "whether the data is the demo, whose figures say nothing about real images"]
Fingerprint = Annotated[str, "of the data, 64 hexadecimal digits"]
MeasuredOn = Annotated[Environment, "hardware and versions"]
TrainedIn = Annotated[str, "number format of training and of passes for features: `fp32`, `bf16` or `fp16`"]
TestedIn = Annotated[str, "number format of tests: `fp32`, `bf16` or `fp16`"]
Unreadable = Annotated[list[str], "`path: reason` of files that could not be read"]


class DataConfigObject(TypedDict):
    """What images a network takes."""

    mean: Annotated[list[float], "per channel of images in 0-1"]
    std: Annotated[list[float], "standard deviation, likewise"]
    interpolation: Annotated[str, "`bilinear`, `bicubic` or `lanczos`: what resizes test images"]
    crop_ratio: Annotated[float, "0-1; test crop over the length that an image is resized to"]
    crop_mode: Annotated[str, "`center`: the shorter side is resized to that length; `squash`: both sides are"]
    train_res: Annotated[int, "pixels; side of the (last) training crops"]
    test_res: Annotated[int, "pixels; its own test size: what it is fixed for, after `finetune`"]
    fixed_size: Annotated[bool, "whether it takes no other size"]
    sources: Annotated[dict[str, str], "by key: `flag`, `checkpoint`, `weights` or `default`"]


NetworksImages = Annotated[DataConfigObject, "what images the network takes, and where each value comes from"]


class AccuracyRow(TypedDict):
    """The result of one evaluation. The `real_` keys are there only with `evaluate --real`."""

    test_res: Annotated[int, "pixels; side of the test crop"]
    crop_ratio: Annotated[float, "0-1; test crop over the length the shorter side is resized to"]
    views: Annotated[str, "`single`, `flip` or `ten-crop`: the views of an image that are averaged"]
    num_views: Annotated[int, "how many these are: 1, 2 or 10"]
    top1: Annotated[float, "%; images whose label was the first answer"]
    top1_low: Annotated[float, "%; lower end of its 95 % interval (Wilson)"]
    top1_high: Annotated[float, "%; upper end"]
    num_top1: Annotated[int, "images; the count it is made of"]
    top5: Annotated[float, "%; images whose label was among the first five answers"]
    top5_low: Annotated[float, "%; lower end of its 95 % interval"]
    top5_high: Annotated[float, "%; upper end"]
    num_top5: Annotated[int, "images; the count it is made of"]
    num_images: Annotated[int, "images tested, over all processes"]
    num_unreadable: Annotated[int, "images that could not be read, not among those"]
    seconds: Annotated[float, "s; wall time, loading included"]
    images_per_s: Annotated[float, "images/s; wall time, loading included"]
    gmacs: Annotated[float | None, "10^9 multiply-accumulates per image, all views together; null but in `evaluate`"]
    real_top1: NotRequired[Annotated[float, "%; by ImageNet-ReaL's labels"]]
    real_top1_low: NotRequired[Annotated[float, "%; lower end of its 95 % interval"]]
    real_top1_high: NotRequired[Annotated[float, "%; upper end"]]
    num_real_top1: NotRequired[Annotated[int, "images; the count it is made of"]]
    num_real_images: NotRequired[Annotated[int, "images that have such labels"]]


class EpochRecord(TypedDict):
    """Line of records.jsonl with the event `epoch`: after the training part of an epoch."""

    epoch: Annotated[int, "epochs done, this one included"]
    step: Annotated[int, "optimiser steps done since the stage began"]
    train_res: Annotated[int, "pixels; side of the epoch's crops"]
    lr: Annotated[float, "learning rate of the last step"]
    loss: Annotated[float, "nats; mean over the epoch's images"]
    images_per_s: Annotated[float, "images/s; wall time, loading included"]
    wait_share: Annotated[float, "0-1; share of the time spent waiting for a batch"]
    num_images: Annotated[int, "images trained on, over all processes; cached features after a `pass`"]
    seconds: Annotated[float, "s; wall time"]


class EvaluationRecord(AccuracyRow):
    """Line of records.jsonl with the event `evaluation`: after each epoch of `train`, before and after `finetune`."""

    epoch: Annotated[int, "epochs done before; 0 is before fine-tuning"]


class Distribution(TypedDict):
    """A Fréchet distribution of activations."""

    location: Annotated[float, "in units of the activations"]
    scale: Annotated[float, "in units of the activations"]
    shape: Annotated[float, "exponent"]


class Fit(Distribution):
    """The distribution of the activations above zero, and the share of the others."""

    zeros: Annotated[float, "0-1; share of exact zeros"]


class Fits(TypedDict):
    """Fits of `finetune --method frechet`."""

    trained: Annotated[Fit, "on training crops"]
    tested: Annotated[Fit, "at the test resolution"]


class PassRecord(TypedDict):
    """Line of records.jsonl with the event `pass`: after `finetune` has run images forward once, without training."""

    test_res: Annotated[int, "pixels"]
    num_images: Annotated[int, "images forwarded, those for the last norm's statistics included"]
    views: Annotated[int, "augmented views per image"]
    images_per_s: Annotated[float, "images/s"]
    seconds: Annotated[float, "s; wall time"]
    trained: NotRequired[Annotated[Fit, "only with `--method frechet`: on training crops"]]
    tested: NotRequired[Annotated[Fit, "only with `--method frechet`: at the test resolution"]]


class TrainFile(TypedDict):
    """`train --json` and results.json of its run folder."""

    results: Annotated[list[AccuracyRow], "at the last training and the test resolution, or one if equal"]
    best_top1: Annotated[float | None, "%; the best evaluation after an epoch; null if none was made"]
    data_config: NetworksImages
    seconds: Annotated[float, "s; wall time of this call"]
    precision: TrainedIn
    eval_precision: TestedIn
    synthetic: Synthetic
    fingerprint: Fingerprint
    environment: MeasuredOn


class FinetuneFile(TypedDict):
    """`finetune --json` and results.json of its run folder."""

    before: Annotated[
        list[AccuracyRow], "at the network's own test size and at what it is fixed for, ascending; one if equal"
    ]
    after: Annotated[list[AccuracyRow], "the same after fine-tuning"]
    seconds: Annotated[float, "s; wall time of all epochs, evaluations excluded"]
    trained_parameters: Annotated[int, "numbers that train by gradient"]
    data_config: NetworksImages
    checkpoint: Annotated[str | None, "what was fine-tuned; null if the network was given by name"]
    frechet: NotRequired[Annotated[Fits, "only with `--method frechet`"]]
    precision: TrainedIn
    eval_precision: TestedIn
    synthetic: Synthetic
    fingerprint: Fingerprint
    environment: MeasuredOn


class EvaluateFile(TypedDict):
    """`evaluate --json`; before.json, after.json and baseline.json of `fixres`."""

    results: Annotated[list[AccuracyRow], "ascending by resolution, crop ratio, number of views"]
    best: Annotated[AccuracyRow, "the row with the best top-1"]
    recommended: Annotated[AccuracyRow, "the cheapest row whose top-1 is in the best one's 95 % interval"]
    only_mapped: Annotated[bool, "whether only outputs that the data has a class for may answer"]
    class_outputs: Annotated[list[int], "the output of each class of the data"]
    data_config: NetworksImages
    model: Annotated[str, "name"]
    checkpoint: Annotated[str | None, "path; null if the network was given by name"]
    eval_precision: TestedIn
    unreadable: Unreadable
    synthetic: Synthetic
    fingerprint: Fingerprint
    environment: MeasuredOn


class OutputsFile(TypedDict):
    """outputs.json of `evaluate --save-outputs`."""

    accuracy: Annotated[AccuracyRow, "of these outputs"]
    title: Annotated[str, "name for tables and plots"]
    model: Annotated[str, "name"]
    checkpoint: Annotated[str | None, "path; null if the network was given by name"]
    eval_precision: TestedIn
    val_fraction: Annotated[float | None, "share of images split off for testing; null if the data has a split"]
    classes: Annotated[list[str], "of the data, in label order"]
    class_outputs: Annotated[list[int], "the output of each class"]
    num_outputs: Annotated[int, "of the network"]
    data_config: NetworksImages
    unreadable: Unreadable
    synthetic: Synthetic
    fingerprint: Fingerprint
    environment: MeasuredOn


class Split(TypedDict):
    """One split of a data set."""

    num_images: Annotated[int, "number"]
    num_classes: Annotated[int, "classes with images in it"]
    mean_kb: Annotated[float, "kB of 1000 bytes; mean file length"]


class Copies(TypedDict):
    """Resized copies of one size in a prepared data set."""

    side_px: Annotated[int, "pixels; their shorter side"]
    num_images: Annotated[int, "images that have one"]
    megabytes: Annotated[float, "10^6 bytes"]


class LeftOutRow(TypedDict):
    """A file that is left out of the data set."""

    path: Annotated[str, "path"]
    reason: Annotated[str, "in words"]


class IndexFile(TypedDict):
    """`index --json`."""

    splits: Annotated[dict[str, Split], "`train` and `val`; an empty split is missing"]
    copies: Annotated[list[Copies], "of a prepared data set, by size"]
    classes: Annotated[list[str], "names in label order"]
    left_out: Annotated[list[LeftOutRow], "files that are not readable images"]
    fingerprint: Fingerprint
    synthetic: Synthetic
    seconds: Annotated[float, "s; wall time"]


class VerifyFile(TypedDict):
    """`verify --json`."""

    num_files: Annotated[int, "files checked"]
    unreadable: Unreadable
    fingerprint: Fingerprint
    seconds: Annotated[float, "s; wall time"]


class DoctorEnvironment(Environment):
    """`environment` of `doctor --json`."""

    cache_folder: Annotated[str, "path"]
    operator: Annotated[str, "what makes crops on a CPU: `compiled`, or why DALI's operators do"]


class DecodeObject(TypedDict):
    """Speed of the decoders on a GPU."""

    images_per_s: Annotated[dict[str, float], "images/s on drawn images, by way: `cpu` and `gpu`"]
    auto: Annotated[str, "the faster way"]


class PrecisionRow(TypedDict):
    """What a device computes in."""

    auto: Annotated[str, "what `--precision auto` takes: `fp32`, `bf16` or `fp16`"]
    fast_bf16: Annotated[bool, "whether it has instructions for bfloat16"]


class DoctorFile(TypedDict):
    """`doctor --json`."""

    environment: Annotated[DoctorEnvironment, "hardware and versions"]
    graph: Annotated[dict[str, str], "`works`, or what failed, by device and way to decode"]
    precision: Annotated[dict[str, PrecisionRow], "number formats, by device: `cpu`, `cuda`"]
    decoding: NotRequired[Annotated[DecodeObject, "only with a GPU"]]
