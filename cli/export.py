"""The verb ``export``: a version for other tools."""

from __future__ import annotations

import argparse

from ..protocol.host.cache import expanded
from .flags import add_verbose, path

HELP = "write a version as other tools load it, with a model card; its manifest must verify"
EXAMPLES = ("runs/mine/versions/3f2a --to gguf-lora",)
EXPORTS = ("peft", "gguf-lora", "gguf-merged")
KINDS = ("f32", "f16", "bf16", "q8_0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("version", type=path, metavar="VERSION", help="folder of the version, RUN/versions/VERSION")
    parser.add_argument("--to", choices=EXPORTS, required=True, help="for peft, or for llama.cpp")
    parser.add_argument(
        "--quantise", choices=KINDS, default="", help="kind of numbers (default: f32 for peft, else f16)"
    )
    parser.add_argument("--base", default="", metavar="PATH", help="the base model (default: its run's)")
    parser.add_argument("--out", metavar="DIR", help="an empty folder (default: VERSION-FORMAT)")
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export a version and print its files."""
    from ..server.export import export
    from ..server.run_folder import STORED, stored_config

    folder = arguments.version
    run_folder = folder.absolute().parent.parent
    of_run = stored_config(run_folder).policy.base if (run_folder / STORED).is_file() else ""
    out = expanded(arguments.out or f"{folder.name}-{arguments.to}")
    for file in sorted(export(folder, arguments.to, arguments.quantise, arguments.base or of_run, out).iterdir()):
        print(f"{file}  {file.stat().st_size:,} bytes")
    return 0
