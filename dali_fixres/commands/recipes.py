"""`dali-fixres recipes`: what --config takes by name."""

from rich.console import Console

from dali_fixres.config import recipe_header
from dali_fixres.config import recipes as shipped_recipes

__all__ = ["recipes"]


def recipes() -> None:
    """Print each recipe's name, its command, and what has been published for it."""
    console = Console(soft_wrap=True)
    for name, path in shipped_recipes().items():
        console.print(name, style="bold", markup=False, highlight=False)
        for line in recipe_header(path):
            console.print(f"  {line}", markup=False, highlight=False)
