"""Loops inside a test: a failure says which item it was about."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def naming(*item) -> Iterator[None]:
    """Add the item to an error that the block raises."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"for {', '.join(map(str, item))}")
        raise
