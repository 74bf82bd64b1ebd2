"""Coverage-guided fuzzing of the decoders, with atheris (libFuzzer), which is not among the dependencies:

    pip install atheris
    python -m tests.fuzz.run terms --start FOLDER
    python -m tests.fuzz.run terms FOLDER -max_total_time=60
    python -m tests.fuzz.run terms --keep FOLDER

The first argument is a decoder of `tests.fuzz.decoders`; the others go to libFuzzer. Anything that a decoder raises
but `FedoelError` is a finding, and its bytes are written to ``crash-...``: fix it, and add the bytes to the corpus.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["fedoel"]):
    from .decoders import DECODERS, corpus, decode, examples, keep


def main(arguments: list[str]) -> None:
    """Fuzz one decoder; or start a folder of inputs with ``--start FOLDER``, or add what is in it with ``--keep``."""
    name, *rest = arguments
    if name not in DECODERS:
        raise SystemExit(f"no decoder {name!r}: give one of {', '.join(DECODERS)}")
    if rest[:1] == ["--start"]:
        folder = Path(rest[1])
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate([*examples()[name], *corpus(name)]):
            (folder / f"start-{number}").write_bytes(data)
        return
    if rest[:1] == ["--keep"]:
        keep(name, [path.read_bytes() for path in sorted(Path(rest[1]).iterdir())])
        return
    run: Callable[[bytes], Any] = lambda data: decode(name, data)  # noqa: E731
    atheris.Setup([sys.argv[0], *rest], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
