"""Settings of `export`."""

from dataclasses import dataclass
from pathlib import Path

from dali_fixres.config.rules import Settings
from dali_fixres.errors import ConfigError

__all__ = ["ExportConfig"]

OTHER_FILES = (".pth", ".pt", ".bin", ".onnx", ".json")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Settings):
    """Settings of `dali-fixres export`."""

    out: Path
    """Folder to write model.safetensors, config.json and the model card README.md into; or NAME.safetensors, for files
    of that name with .json and .md beside it."""

    checkpoint: Path | None = None
    """Run folder or checkpoint file; the newest run under runs/ if left out."""

    onnx: bool = False
    """Also write an ONNX file for the test resolution, with any batch size (needs the extra `onnx`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.suffix in OTHER_FILES:
            raise ConfigError(f"--out must be a folder, or a file that ends with .safetensors; found {self.out}")

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.out.parent if self.out.suffix == ".safetensors" else self.out

    @property
    def names(self) -> tuple[str, str, str, str]:
        """Names of the weights, the configuration, the card and the ONNX file."""
        if self.out.suffix == ".safetensors":
            stem = self.out.stem
            return f"{stem}.safetensors", f"{stem}.json", f"{stem}.md", f"{stem}.onnx"
        return "model.safetensors", "config.json", "README.md", "model.onnx"
