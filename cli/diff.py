"""The verb ``diff``: two versions side by side."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .flags import add_verbose, path, whole_number
from .prompts import printable
from .version_text import add_folder, add_version, columns, difference_lines, located, won

if TYPE_CHECKING:
    from ..protocol.situation import Situation
    from ..server.compare import Behaviour
    from ..server.learner import Adapter
    from ..server.version_list import KnownVersion, VersionList

HELP = "compare two versions: lessons, answers to public prompts before and after, sizes, and who contributed"
EXAMPLES = ("runs/mine 3f2a 9c41",)
LEAST = 1e-4  # nats below which a prompt is not shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folder(parser)
    add_version(parser, "a")
    add_version(parser, "b")
    parser.add_argument("--prompts", type=path, metavar="FILE", help="pack of prompts (default: what the run has kept)")
    parser.add_argument(
        "--number", type=whole_number, default=5, metavar="K", help="prompts to show (default: %(default)s)"
    )
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the differences."""
    from ..server.compare import learned
    from ..server.version_list import VersionList

    known = VersionList(located(arguments))
    first, second = known.find(arguments.a), known.find(arguments.b)
    print(*columns([("", first.name, second.name), *_rows(known, first, second)]), sep="\n")
    print("lessons, summed from the first version on:")
    print(*difference_lines(learned(known, first.name), learned(known, second.name)), sep="\n")
    recorded = None if arguments.prompts else _recorded(known, first, second)
    seen = recorded or _scored(known, first, second, arguments.prompts)
    if isinstance(seen, str):
        print(f"behaviour: not compared ({seen})")
    else:
        print(*_behaviour_lines(seen, arguments.number), sep="\n")
    return 0


def _recorded(known: VersionList, first: KnownVersion, second: KnownVersion) -> Behaviour | None:
    """Compare what the run has kept of both versions, which needs no model; None if it has not kept it."""
    from ..server.compare import compared
    from ..server.cycle.behaviour import answers_of

    before, after = (answers_of(known.place.run, version.cycle, version.name) for version in (first, second))
    return compared(before, after) if before and after else None


def _scored(known: VersionList, first: KnownVersion, second: KnownVersion, prompts: Path | None) -> Behaviour | str:
    """Let both versions answer the prompts of a pack; return why not where something is missing."""
    from ..server.compare import behaviour

    weights: dict[str, Adapter] = {}
    for version in (first, second):
        if (adapter := known.adapter(version)) is None:
            return f"no weights of {version.name} here"
        weights[version.name] = adapter
    situations = _situations(known, prompts)
    return behaviour(known.place.config, weights, situations) if situations else _no_pack(known)


def _no_pack(known: VersionList) -> str:
    """Say how to make a pack of the run's own games, whose compilation may take minutes: nothing does it unasked."""
    families = shlex.quote(known.place.config.games.families)
    return f"no pack of prompts here: fedoel prompts make {families} --out pack.jsonl, then --prompts pack.jsonl"


def _rows(known: VersionList, first: KnownVersion, second: KnownVersion) -> Iterator[tuple[str, str, str]]:
    from ..server.compare import size_of
    from ..server.summary import bounds_of

    def row(name: str, *values: object) -> tuple[str, str, str]:
        return name, str(values[0]), str(values[1])

    both = first, second
    yield row("parent", *(version.parent or "-" for version in both))
    yield row("cycle", *(version.cycle for version in both))
    yield row("decision", *(known.decision_on(version) for version in both))
    yield row("won", *(won(version.results) for version in both))
    yield row("bytes", *(f"{size_of(known.place.versions / version.name):,}" for version in both))
    yield row("contributed", *(bounds_of(version.record.accepted if version.record else 0) for version in both))


def _situations(known: VersionList, prompts: Path | None) -> Sequence[Situation]:
    """Return the first prompts with a choice of a pack: the named one, or the run's; none where there is no pack."""
    from ..protocol.host.cache import cache_folder
    from ..protocol.prompt_pack import read_pack
    from ..server.compare import PROMPTS

    config = known.place.config
    if prompts is None and config.server.lacks_pack:
        try:  # a simulation takes a pack that comes with fedoel, or the one that it has made
            from ..simulations.prompts import with_pack
        except ImportError:
            return ()
        config = with_pack(config, cache_folder(config))
    named = prompts or (Path(config.server.prompts) if config.server.prompts else None)
    if named is None:
        return ()
    situations = [prompt.situation for prompt in read_pack(named).prompts]
    return [situation for situation in situations if len(situation.admissible) > 1][:PROMPTS]


def _behaviour_lines(seen: Behaviour, number: int) -> Iterator[str]:
    changed = f"another first choice on {seen.changed}, mean KL {seen.kl:.3f} nats"
    yield f"behaviour on {seen.prompts} public prompts: {changed}"
    for shift in [shift for shift in seen.shifts if shift.kl > LEAST][: max(number, 0)]:
        asked = shift.question
        yield f"  {printable(asked.goal)} ({printable(asked.place or 'no place')}, turn {asked.turn})"
        shown = {shift.before[0]: shift.before, shift.after[0]: shift.after}
        for command, before, after in shown.values():
            yield f"    {before:4.0%} -> {after:4.0%}  {printable(command)}"
