"""What every bench begins with: its flags, and errors of the user as one line."""

import sys

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from dali_fixres.errors import UserError

__all__ = ["start"]


def start(app: App) -> None:
    """Run a bench with the flags of the command line; exit with 2 if they or the data cannot be used."""
    try:
        app(exit_on_error=False, print_error=False)
    except (CycloptsError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
