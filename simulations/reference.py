"""Write what is derived from declared settings: tables of the reference, and the run config in pyproject.toml.

``python -m fedoel.simulations.reference --write`` rewrites the marked blocks of a checkout. Without ``--write``
it names the files that are out of date, and exits with 1 if there are any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..client.device.settings import DeviceSettings
from ..protocol.config import RunConfig
from ..protocol.formats import formats_table
from ..protocol.settings import settings_table
from ..server.operate.run_app import config_block

ROOT = Path(__file__).resolve().parents[1]


def generated() -> Mapping[str, Mapping[str, str]]:
    """Return the text of every generated block, by file and by the name in its marker lines."""
    return {
        "docs/reference.md": {
            "run settings": settings_table(RunConfig),
            "device settings": settings_table(DeviceSettings),
            "formats": formats_table(),
        },
        "pyproject.toml": {"run config": config_block(RunConfig().to_flat())},
    }


def renewed(text: str, blocks: Mapping[str, str]) -> str:
    """Return a file's text with current blocks, each between a line with ``[begin NAME]`` and one with ``[end NAME]``.

    Raises
    ------
    ValueError
        If one of these lines is missing.
    """
    for name, block in blocks.items():
        begin = re.search(rf"^.*\[begin {name}\].*\n", text, re.MULTILINE)
        end = re.search(rf"^.*\[end {name}\]", text, re.MULTILINE)
        if begin is None or end is None:
            raise ValueError(f"the lines with [begin {name}] and [end {name}] are missing")
        text = text[: begin.end()] + block + text[end.start() :]
    return text


def main(arguments: Sequence[str]) -> int:
    """Check or rewrite all generated blocks."""
    status = 0
    for name, blocks in generated().items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        current = renewed(text, blocks)
        if text == current:
            continue
        if "--write" in arguments:
            path.write_text(current, encoding="utf-8")
        else:
            print(f"{path} is out of date: run `python -m fedoel.simulations.reference --write`")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
