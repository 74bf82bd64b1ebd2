"""What libraries print beside our own lines: hidden, unless a verb runs with ``--verbose``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Read by tqdm, Hugging Face's hub and transformers when they are first imported.
NO_BARS = (("TQDM_DISABLE", "1"), ("HF_HUB_DISABLE_PROGRESS_BARS", "1"), ("TRANSFORMERS_VERBOSITY", "error"))


@contextmanager
def quiet_libraries(arguments: argparse.Namespace) -> Iterator[None]:
    """Hide progress bars, Python warnings and Flower's messages below WARNING, for a verb that has ``--verbose``.

    Nothing is hidden where that flag was given. Flower's messages are coloured on a terminal only.
    """
    verbose = getattr(arguments, "verbose", None)
    if verbose is None:
        yield
        return
    lowest = logging.NOTSET if verbose else logging.WARNING
    flower = logging.getLogger("flwr")

    def admit(record: logging.LogRecord) -> bool:
        for handler in flower.handlers:
            if hasattr(handler, "colored"):
                handler.colored = sys.stderr.isatty()
        return record.levelno >= lowest

    # A filter, because Flower sets the logger's level when it is imported, which is later.
    flower.addFilter(admit)
    try:
        with warnings.catch_warnings():
            if not verbose:
                _hide_bars_and_warnings()
            yield
    finally:
        flower.removeFilter(admit)


def _hide_bars_and_warnings() -> None:
    for name, value in NO_BARS:
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
