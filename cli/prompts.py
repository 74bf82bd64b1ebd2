"""The verb ``prompts``: packs of public situations for a server that never plays."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..protocol.config import MOST_PROMPTS, PACK_PLAYS
from ..protocol.errors import ConfigError
from ..protocol.settings import shown
from .flags import add_verb, path, whole_number

if TYPE_CHECKING:
    from ..protocol.prompt_pack import Prompt, PromptPack

HELP = "make, show or check a prompt pack: what a server holds that never plays"
EXAMPLES = ("make 'tidy things=1 turns=6' --out pack.jsonl",)
LISTED = 10  # line numbers in an error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs below ``prompts`` and their flags."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    games = "'tidy things=1 turns=6; sokoban turns=9'"
    examples = [f"{games} --out pack.jsonl", "--text letters.txt --family letters --out letters.jsonl"]
    make = add_verb(what, "make", "make a pack from games, a text file or a plug-in", examples)
    make.add_argument(
        "source", nargs="?", default="", metavar="FAMILIES",
        help=f"games that are played without rewards, e.g. {games}, or the plug-in "
        "module:function, which returns prompts",
    )  # fmt: skip
    make.add_argument("--text", type=path, metavar="FILE", help="situations as text: see docs/simulate.md")
    make.add_argument("--family", default="", metavar="NAME", help="what to call the family of a text file")
    make.add_argument(
        "--count", type=whole_number, default=500, metavar="N",
        help="prompts of games or a plug-in (default: %(default)s)",
    )  # fmt: skip
    _add_play(make)
    make.add_argument("--out", type=path, required=True, metavar="FILE", help="the pack; it must not exist")
    make.add_argument("--origin", default="", metavar="TEXT", help="where the prompts come from (default: the source)")
    make.add_argument("--licence", default="", metavar="TEXT", help="under which licence they may be used")
    make.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="of instances and play (default: %(default)s)"
    )
    show = add_verb(what, "show", "say what a pack holds, with examples", ["pack.jsonl --number 5"])
    show.add_argument("file", type=path, metavar="FILE", help="the pack")
    show.add_argument(
        "--number", type=whole_number, default=3, metavar="K",
        help="prompts to show, from the first on (default: %(default)s)",
    )  # fmt: skip
    text = "check a pack's form, and that it holds nothing of held-out games"
    check = add_verb(what, "check", text, [f"pack.jsonl --against {games}"])
    check.add_argument("file", type=path, metavar="FILE", help="the pack")
    check.add_argument("--against", metavar="FAMILIES", help="games whose held-out instances to compare")
    _add_play(check)


def _add_play(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--play", choices=PACK_PLAYS, default=PACK_PLAYS[0], metavar="WAY",
        help="how games are played: uniform, or explore, which finds more late states (default: %(default)s)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run one of the verbs below ``prompts``."""
    from ..protocol.prompt_pack import read_pack, write_pack

    if arguments.what == "make":
        if arguments.out.exists():
            raise ConfigError(f"{arguments.out} exists: choose another --out, or delete it")
        pack = _made(arguments)
        write_pack(arguments.out, pack)
        print(*summary(pack), f"written to {arguments.out}", sep="\n")
        return 0
    pack = read_pack(arguments.file)
    print(*summary(pack), sep="\n")
    if arguments.what == "show":
        for index, prompt in enumerate(pack.prompts[: max(arguments.number, 0)]):
            print("", *example_lines(index, prompt), sep="\n")
    elif arguments.against is not None:
        _check_against(pack, arguments)
    return 0


def summary(pack: PromptPack) -> Iterator[str]:
    """Yield what a pack holds: its header, its digest, and the number of prompts of each family and turn."""
    count = len(pack.prompts)
    yield f"prompt pack {pack.digest}: {count} {'prompt' if count == 1 else 'prompts'}"
    yield f"origin: {printable(pack.origin) or 'not stated'}"
    yield f"licence: {printable(pack.licence) or 'not stated'}"
    if pack.red_lines:
        yield f"red lines: {printable(', '.join(pack.red_lines))}"
    for family in pack.families:
        situations = [prompt.situation for prompt in pack.prompts if prompt.family == family]
        open_answers = sum(situation.open or not situation.admissible for situation in situations)
        turns = sorted(Counter(situation.turn for situation in situations).items())
        by_turn = ", ".join(f"{turn}: {number}" for turn, number in turns)
        note = f", {open_answers} with an open answer" if open_answers else ""
        yield f"{printable(family)}: {len(situations)}{note}; by turn {by_turn}"


def example_lines(index: int, prompt: Prompt) -> Iterator[str]:
    """Yield a prompt as a policy sees it, and the commands among which it chooses."""
    from ..protocol.prompt_pack import FIRST_LINE
    from ..protocol.prompts import render

    situation = prompt.situation
    rendered = render(situation)
    turn = f"turn {situation.turn} of {situation.max_turns}"
    yield f"--- line {index + FIRST_LINE}: {printable(prompt.family)}, {turn}"
    yield printable(rendered.scene + rendered.moment)
    yield from (printable(f"> {command}") for command in situation.admissible)
    if situation.open or not situation.admissible:
        yield "(open answer)"


def printable(text: str) -> str:
    """Return a text without characters that control a terminal; a pack can come from anybody."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _made(arguments: argparse.Namespace) -> PromptPack:
    from ..games.make_prompts import make_pack, prompts_from_plugin, prompts_from_text
    from ..protocol.host.cache import default_cache
    from ..protocol.play import specs_from_text
    from ..protocol.prompt_pack import PromptPack

    source, origin, licence = arguments.source.strip(), arguments.origin, arguments.licence
    if bool(source) == bool(arguments.text) or bool(arguments.text) != bool(arguments.family):
        raise ConfigError("name games or a plug-in, or else a text file with --text FILE --family NAME")
    if not 1 <= arguments.count <= MOST_PROMPTS or arguments.seed < 0:
        raise ConfigError(
            f"--count must be from 1 to {MOST_PROMPTS:,} and --seed at least 0, not {shown(arguments.count)} and "
            f"{shown(arguments.seed)}"
        )
    if arguments.text:
        return PromptPack(origin or arguments.text.name, licence, prompts_from_text(arguments.text, arguments.family))
    if ":" in source and len(source.split()) == 1:  # games need at least a turn limit: several words
        return PromptPack(origin or source, licence, prompts_from_plugin(source, arguments.count))
    specs = specs_from_text(source)
    return make_pack(specs, arguments.count, arguments.seed, default_cache(), origin, licence, arguments.play)


def _check_against(pack: PromptPack, arguments: argparse.Namespace) -> None:
    from ..games.make_prompts import HELD_OUT_GAMES, held_out_duplicates
    from ..protocol.host.cache import default_cache
    from ..protocol.play import specs_from_text
    from ..protocol.prompt_pack import FIRST_LINE

    specs = specs_from_text(arguments.against)
    if not specs:
        raise ConfigError("--against names no games, e.g. 'tidy things=1 turns=6'")
    found = held_out_duplicates(pack, specs, HELD_OUT_GAMES, default_cache(), arguments.play)
    lines = [index + FIRST_LINE for index in found]
    if lines:
        listed = ", ".join(map(str, lines[:LISTED]))
        more = f" and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        raise ConfigError(
            f"prompts of {arguments.file} nearly equal states of held-out games; delete lines {listed}{more}"
        )
    print(f"no prompt nearly equals a state of {HELD_OUT_GAMES} held-out games of each family")
