"""What images a network takes (normalisation, resize, crop, sizes), and where each of these values comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Any, Literal, TypeAlias, get_args

from dali_fixres.config import Channels, CropMode, DataValues
from dali_fixres.runtime.json_files import DataConfigObject
from pipelines.plan.augmentation import Augmentation, views_of
from pipelines.plan.colour import IMAGENET, Normalisation
from pipelines.plan.crops import centre_crop, shifted_crop, squash_crop
from pipelines.plan.interpolation import INTERPOLATIONS, Interpolation, TrainInterpolation
from pipelines.plan.views import Views
from pipelines.resolution import DEFAULT_CROP_RATIO, Resolution

__all__ = ["DataConfig", "Source"]

Source: TypeAlias = Literal["default", "weights", "checkpoint", "flag"]
"""In the order in which they count, the last first. `default` is the library's for the network, or ImageNet's;
in `train` also that of a flag for a size."""

USUAL_RES = 224
"""Pixels at which networks of unknown origin were most likely trained and tested."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What images a network takes. The defaults are those of most ImageNet networks.

    Attributes:
        mean, std: Per channel, of images in 0-1.
        interpolation: What resizes test images, and training images unless that is drawn.
        crop_ratio: Side of the test crop over the length that an image is resized to.
        crop_mode: Whether that is the length of the shorter side (center) or of both sides (squash).
        train_res: Side of the (last) training crops, pixels.
        test_res: Side of its own test crops, pixels.
        fixed_size: Whether the network as it is built takes no other size than `test_res`, whatever weights say.
        sources: Where values come from, by attribute; a missing one is a default.
    """

    mean: Channels = IMAGENET.mean
    std: Channels = IMAGENET.std
    interpolation: Interpolation = "bilinear"
    crop_ratio: float = DEFAULT_CROP_RATIO
    crop_mode: CropMode = "center"
    train_res: int = USUAL_RES
    test_res: int = USUAL_RES
    fixed_size: bool = False
    sources: Mapping[str, Source] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return all values in one line, each group with its source."""
        images = [
            ("mean", f"mean {_text(self.mean)}"),
            ("std", f"std {_text(self.std)}"),
            ("interpolation", self.interpolation),
            *([("crop_mode", "squashed to a square")] if self.crop_mode == "squash" else []),
            ("crop_ratio", f"crop ratio {self.crop_ratio:.4g}"),
        ]
        alone = ", its only size" if self.fixed_size else ""
        sizes = [("train_res", f"trained at {self.train_res} px"), ("test_res", f"tested at {self.test_res} px{alone}")]
        return f"images: {self._described(images)}; {self._described(sizes)}"

    def _described(self, values: list[tuple[str, str]]) -> str:
        groups = groupby(values, key=lambda value: self.source_of(value[0]))
        return ", ".join(f"{', '.join(text for _, text in group)} ({source})" for source, group in groups)

    @property
    def normalisation(self) -> Normalisation:
        """What takes off mean and standard deviation."""
        return Normalisation(self.mean, self.std)

    @property
    def test_resolution(self) -> Resolution:
        """The network's own test size and crop ratio."""
        return Resolution(self.test_res, self.crop_ratio)

    def source_of(self, name: str) -> Source:
        """Return where a value comes from."""
        return self.sources.get(name, "default")

    def given(self, source: Source, values: DataValues) -> "DataConfig":
        """Return this with the values that a source gives; it wins over what was given before.

        Where nothing says at which size the network is tested, that is its training size, or the one size it takes.
        Weights may be for another size than the network is built for, and their test size is then left out. A flag's
        is not, and is then no size that the network takes.
        """
        known: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if self.fixed_size:
            if source == "weights" and known.get("test_res") != self.test_res:
                known.pop("test_res", None)
        elif "train_res" in known and "test_res" not in self.sources.keys() | known.keys():
            known["test_res"] = known["train_res"]
        fixed_size = self.fixed_size and known.get("test_res", self.test_res) == self.test_res
        return replace(self, **known, fixed_size=fixed_size, sources={**self.sources, **dict.fromkeys(known, source)})

    def from_checkpoint(self) -> "DataConfig":
        """Return this as what a command has found in a checkpoint."""
        names = set(DataValues.__annotations__)
        return replace(self, sources=dict.fromkeys(names, "checkpoint"))

    def planned(self, augmentation: Augmentation, interpolation: TrainInterpolation | None = None) -> Augmentation:
        """Return an augmentation with this network's test crop, where it has one, and with its interpolation.

        Args:
            augmentation: Of `AUGMENTATIONS`, or a view.
            interpolation: Instead of its own.
        """
        squashes = self.crop_mode == "squash" and augmentation.crop in {centre_crop, shifted_crop}
        crop = squash_crop if squashes else augmentation.crop
        return replace(augmentation, crop=crop, interpolation=interpolation or self.interpolation)

    def views(self, views: Views) -> tuple[Augmentation, ...]:
        """Return the views of a test image whose predictions are averaged."""
        return tuple(self.planned(view) for view in views_of(views))

    def as_json(self) -> DataConfigObject:
        """Return the object of results files; checkpoints hold the same."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_ratio": self.crop_ratio,
            "crop_mode": self.crop_mode,
            "train_res": self.train_res,
            "test_res": self.test_res,
            "fixed_size": self.fixed_size,
            "sources": {name: self.source_of(name) for name in DataValues.__annotations__},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "DataConfig":
        """Read back what `as_json` returned.

        Raises:
            KeyError, TypeError, ValueError or ConfigError: If a value is missing, or is not what is relied on later.
        """
        values: dict[str, Any] = {one.name: content[one.name] for one in fields(cls)}
        values |= {name: _channels(name, values[name]) for name in ("mean", "std")}
        choices = {"interpolation": INTERPOLATIONS, "crop_mode": get_args(CropMode), "fixed_size": (True, False)}
        for name, allowed in choices.items():
            if values[name] not in allowed:
                raise ValueError(f"{name} is {values[name]!r}")
        for name in ("train_res", "test_res"):
            if not isinstance(values[name], int):
                raise TypeError(f"{name} is {values[name]!r}")
            Resolution(values[name], values["crop_ratio"])
        unknown = set(values["sources"].values()) - set(get_args(Source))
        if unknown:
            raise ValueError(f"sources has {unknown}")
        return cls(**values)


def _text(values: Channels) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _channels(name: str, values: Any) -> Channels:
    one, two, three = values
    if not all(isinstance(value, int | float) for value in values):
        raise TypeError(f"{name} is {values!r}")
    return float(one), float(two), float(three)
