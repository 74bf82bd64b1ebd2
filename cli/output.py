"""What libraries print beside our own lines, which is hidden without ``--verbose``, and output that nobody takes."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO, TextIOWrapper, UnsupportedOperation
from typing import Any

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


class _LossyFile(FileIO):
    """A file that drops what it cannot write, and remembers why."""

    problem: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or pretend to."""
        try:
            return super().write(data) or 0
        except OSError as error:
            self.problem = error
            return memoryview(data).nbytes


@contextmanager
def dropping_lost_output() -> Iterator[None]:
    """Let a verb go on whose output nobody takes: the reader of a pipe has ended, or the disk of a log is full.

    The latter is said on standard error at the end.
    """
    before, files = (sys.stdout, sys.stderr), list[_LossyFile]()
    for name in ("stdout", "stderr"):
        if (stream := _lossy(getattr(sys, name), files)) is not None:
            setattr(sys, name, stream)
    try:
        yield
    finally:
        for wrapped in (sys.stdout, sys.stderr):
            wrapped.flush()
        sys.stdout, sys.stderr = before
        problems = [file.problem for file in files if file.problem and file.problem.errno != errno.EPIPE]
        if problems:
            print(f"fedoel: some output is lost: {problems[0].strerror}; make room where it goes", file=sys.stderr)


def _lossy(stream: Any, files: list[_LossyFile]) -> TextIOWrapper | None:
    """Return a stream to the same file that drops what it cannot write; None if the stream has no file."""
    try:
        stream.flush()
        files.append(_LossyFile(stream.fileno(), "wb", closefd=False))
    except (OSError, UnsupportedOperation, AttributeError):
        return None
    return TextIOWrapper(
        BufferedWriter(files[-1]), stream.encoding, errors="replace", line_buffering=stream.line_buffering
    )
