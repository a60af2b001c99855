"""What DALI's error messages say: what happened, and to which image of the batch."""

import re

__all__ = ["first_cause", "refused_sample"]


def first_cause(message: str) -> str:
    """Return the line of a DALI error that says what happened, or an empty string if it is another error."""
    _, _, cause = message.partition("encountered:")
    return next((line.strip() for line in cause.splitlines() if line.strip()), "")


def refused_sample(message: str, batch_size: int) -> int | None:
    """Return the position in the batch of the image that a decoder's error is about, or None if it names none."""
    found = re.search(r"Failed to decode sample #(\d+)", message)
    return int(found[1]) if found and int(found[1]) < batch_size else None
