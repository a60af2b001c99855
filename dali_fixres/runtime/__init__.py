"""What a run needs from its surroundings: devices, processes, folders, progress, data.

Names are imported on first use: `prepare_host` has to run before torch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dali_fixres.runtime.devices import choose_device
    from dali_fixres.runtime.environment import environment as record_environment
    from dali_fixres.runtime.precision import auto_precision, run_network
    from dali_fixres.runtime.progress import Reporter
    from dali_fixres.runtime.system import prepare_host

__all__ = [
    "Reporter",
    "auto_precision",
    "choose_device",
    "prepare_host",
    "record_environment",
    "run_network",
]

_PLACES = {
    "Reporter": ("progress", "Reporter"),
    "auto_precision": ("precision", "auto_precision"),
    "choose_device": ("devices", "choose_device"),
    "prepare_host": ("system", "prepare_host"),
    "record_environment": ("environment", "environment"),  # a module of the package has the function's own name
    "run_network": ("precision", "run_network"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)
