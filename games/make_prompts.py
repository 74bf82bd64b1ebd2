"""Prompt packs from public games: states that uniform play or exploration visits, without what became of them.

Private and held-out games stay out of a pack: only public training games are played (`Split.REHEARSAL`), with seeds
that no run uses. Prompts of other origin, from a text file or a plug-in, can be compared with held-out games.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice, zip_longest
from pathlib import Path
from typing import cast

import numpy as np
from numpy.random import Generator

from ..protocol.config import PACK_PLAYS
from ..protocol.errors import ConfigError, FedoelError, GameError
from ..protocol.host.cache import REMEDY
from ..protocol.host.files import make_folder, move_into_place, replace_file
from ..protocol.play import GameSpec, specs_from_text
from ..protocol.plugins import import_object
from ..protocol.prompt_pack import Prompt, PromptPack, read_pack, write_pack
from ..protocol.prompts import LONGEST_REPLY
from ..protocol.situation import Memory, Situation
from .explore import Key, explore, state_key
from .families import family_of, red_lines_of
from .heuristics import uniform
from .prepare import prepare
from .scripted import play_scripted
from .splits import PUBLIC_GAMES, Split, for_split, game_seed

FORMAT = 1
"""Part of the names of cached packs: increase it when the same arguments of `make_pack` give another pack."""

FIRST_GAME = 10_000_000  # runs take rehearsal games from index 0 on
UNIFORM, EXPLORE = PACK_PLAYS
STATES_PER_GAME = {UNIFORM: 3, EXPLORE: 6}
EPISODES_PER_GAME = 4  # compiling a game takes longer than playing it, and few random episodes reach the last turns
LEAST_STATES = 16  # of a family that has fewer distinct states than its share
SPARE_GAMES = 32
HELD_OUT_GAMES = 50  # instances of each specification that packs are compared with
GOAL, COMMAND = "Goal:", "> "


def make_pack(
    specs: Sequence[GameSpec],
    count: int,
    seed: int,
    cache: Path,
    origin: str = "",
    licence: str = "",
    play: str = UNIFORM,
) -> PromptPack:
    """Make a pack of states that play of public games without rewards visits, every specification in equal shares.

    The pack carries the red lines that the families declare.

    Only states with two or more commands are kept, at most `STATES_PER_GAME` of a game instance. Of uniform play the
    turns that have the fewest states so far are preferred, so that early and late turns are about equally frequent;
    of exploration, states with commands that few states of their game have (see `explore`). Where a family
    divides its content between the splits, what `held_out_duplicates` finds in `HELD_OUT_GAMES` games is left out:
    different content can lead to the same state, such as an empty room.

    Parameters
    ----------
    specs
        The games.
    count
        Number of prompts. The pack has fewer if a game has fewer distinct states than its share, but at least
        `LEAST_STATES`.
    seed
        Seed of instances and play, of which the pack is a pure function.
    cache
        Folder for compiled games.
    origin, licence
        For the header; by default the origin says which games were played, and how.
    play
        `UNIFORM` or `EXPLORE`, which finds more late states and takes longer.

    Raises
    ------
    ConfigError
        If there are no games, a game is invalid, `play` is none of the two, or `count` is less than one for each game.
    GameError
        If a game has too few distinct states, or cannot be prepared.
    """
    if not specs or count < len(specs):
        raise ConfigError(f"a pack needs games and at least one prompt of each, not {count} prompts of {len(specs)}")
    _check_play(play)
    known = set[Prompt]()
    parts = []
    for index, spec in enumerate(specs):
        share = count // len(specs) + (index < count % len(specs))
        parts.append(_draw(spec, share, known, np.random.default_rng([seed, index]), cache, play))
    # Interleaved, so that every prefix of the pack has the families in about equal shares.
    prompts = tuple(prompt for row in zip_longest(*parts) for prompt in row if prompt)
    played = "uniform play" if play == UNIFORM else "exploration"
    return PromptPack(origin or f"{played} of {'; '.join(map(str, specs))}", licence, prompts, red_lines_of(specs))


def pack_for(families: str, count: int, cache: Path, play: str = UNIFORM) -> Path:
    """Return the file of the pack of these games; it is made on first use, and again if it is damaged.

    Parameters
    ----------
    families
        The games, ``;``-separated as in the setting ``games.families``.
    count
        Number of prompts; see `make_pack`.
    cache
        The cache folder. A pack of plug-in games stays as it is when the plug-in changes, unless its red lines do:
        delete its file then.
    play
        See `make_pack`.

    Raises
    ------
    FedoelError
        If the pack cannot be made, as `make_pack` says, or not be written.
    """
    path = pack_file(cache, pack_name(families, count, play))
    digest = path.with_suffix(".digest")  # a pack that was cut behind a line is a pack, and another one
    with suppress(ConfigError, OSError, UnicodeDecodeError):
        if read_pack(path).digest == digest.read_text(encoding="ascii"):
            return path
    pack = make_pack(specs_from_text(families), count, 0, cache, play=play)
    try:
        make_folder(path.parent)
        # In a folder of its own, because other processes may be making the same pack.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            write_pack(Path(folder) / path.name, pack)
            move_into_place(Path(folder) / path.name, path)
        replace_file(digest, pack.digest)
    except OSError as error:
        raise FedoelError(f"{path} cannot be written: {error.strerror}; {REMEDY}") from error
    return path


def pack_file(cache: Path, name: str) -> Path:
    """Return the file of a pack in the cache."""
    return cache / "prompts" / name


def pack_name(families: str, count: int, play: str = UNIFORM) -> str:
    """Return the name of the file of the pack that `pack_for` makes; it follows from the families' red lines, too."""
    _check_play(play)
    content = [families, count, FORMAT, *red_lines_of(specs_from_text(families)), *([play] if play != UNIFORM else [])]
    return f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.jsonl"


def held_out_duplicates(
    pack: PromptPack, specs: Sequence[GameSpec], games: int, cache: Path, play: str = UNIFORM
) -> list[int]:
    """Return the indices of prompts that are nearly equal, as `state_key` says, to a state of held-out games.

    Of a pack from `make_pack` there are none in up to `HELD_OUT_GAMES` games if the families divide their content
    between the splits; exploration finds some in a pack of uniform play. Other families have the same states in all
    splits.

    Parameters
    ----------
    specs
        The games whose held-out instances are played.
    games
        Number of instances of each specification, from the first on, as a run takes them.
    play
        See `make_pack`.
    """
    _check_play(play)
    held_out = set[Key]().union(*(_held_out_keys(spec, games, cache, play) for spec in specs))
    return [index for index, prompt in enumerate(pack.prompts) if state_key(prompt.situation) in held_out]


def prompts_from_text(path: Path, family: str) -> tuple[Prompt, ...]:
    """Read situations from a text file in UTF-8, with or without a byte order mark.

    Blank lines separate situations. Lines that begin with ``> `` are commands; a first line that begins with ``Goal:``
    is the goal; all other lines are what the player reads, as a game would say it. A situation without commands asks
    for an open answer.

    Raises
    ------
    ConfigError
        If the file cannot be read or has no situations, or a situation is not valid; the message names its first line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text in UTF-8: {error}") from error
    line_of: dict[Prompt, int] = {}
    for number, block in _blocks(lines):
        try:
            prompt = Prompt(family, _situation(block))
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
        if prompt in line_of:
            raise ConfigError(f"{path}, line {number}: this situation equals the one of line {line_of[prompt]}")
        line_of[prompt] = number
    if not line_of:
        raise ConfigError(f"{path} has no situations")
    return tuple(line_of)


def prompts_from_plugin(name: str, count: int) -> tuple[Prompt, ...]:
    """Return the first `count` prompts of a plug-in, ``module:function``; the function returns an iterable of them.

    Raises
    ------
    ConfigError
        If the function cannot be imported, fails, or returns anything but prompts.
    """
    function = import_object(name, "the source of prompts")
    try:
        prompts = list(islice(cast(Callable[[], Iterable[object]], function)(), count))
    except FedoelError:
        raise
    except Exception as error:  # a plug-in is code of others: it may raise anything
        raise ConfigError(f"the source of prompts {name!r} fails: {type(error).__name__}: {error}") from error
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, Prompt):
            raise ConfigError(
                f"the source of prompts {name!r} gives a {type(prompt).__name__} at {index}, not a Prompt"
            )
    return tuple(cast(list[Prompt], prompts))


def _check_play(play: str) -> None:
    if play not in STATES_PER_GAME:
        raise ConfigError(f"games of a pack are played {' or '.join(STATES_PER_GAME)}, not {play!r}")


def _draw(spec: GameSpec, share: int, known: set[Prompt], rng: Generator, cache: Path, play: str) -> list[Prompt]:
    """Return up to `share` prompts of a game that are not among `known`, and add them there."""
    public, drawn, played = for_split(spec, Split.REHEARSAL), list[Prompt](), 0
    divided = "split" in family_of(spec.family).rules
    excluded = set[Key]()
    if divided:
        excluded = set().union(*(_held_out_keys(spec, HELD_OUT_GAMES, cache, way) for way in {UNIFORM, play}))
    per_game, most_games = STATES_PER_GAME[play], 2 * share + SPARE_GAMES
    prompts_at_turn = Counter[int]()
    while len(drawn) < share and played < most_games:
        games = min(math.ceil((share - len(drawn)) / per_game), most_games - played)
        seeds = [game_seed(Split.REHEARSAL, int(i)) for i in rng.integers(FIRST_GAME, PUBLIC_GAMES, size=games)]
        prepare([(public, seed) for seed in seeds], cache)
        for seed in seeds:
            prompts = _prompts_of(public, seed, rng, cache, play)
            candidates = [p for p in prompts if p not in known and state_key(p.situation) not in excluded]
            for _ in range(min(per_game, len(candidates), share - len(drawn))):
                chosen = candidates[0]
                if play == UNIFORM:
                    chosen = min(candidates, key=lambda prompt: prompts_at_turn[prompt.situation.turn])
                candidates.remove(chosen)
                prompts_at_turn[chosen.situation.turn] += 1
                drawn.append(chosen)
                known.add(chosen)
        played += games
    if len(drawn) < min(share, LEAST_STATES):
        raise GameError(
            f"'{spec}' has too few distinct states with two or more commands for a pack: {len(drawn)} in {played} games"
        )
    return drawn


def _held_out_keys(spec: GameSpec, games: int, cache: Path, play: str) -> set[Key]:
    """Return the keys of the states that play of held-out games visits."""
    held_out, rng = for_split(spec, Split.HELD_OUT), np.random.default_rng(0)
    seeds = [game_seed(Split.HELD_OUT, index) for index in range(games)]
    prepare([(held_out, seed) for seed in seeds], cache)
    return {state_key(situation) for seed in seeds for situation in _visited(held_out, seed, rng, cache, play)}


def _prompts_of(spec: GameSpec, seed: int, rng: Generator, cache: Path, play: str) -> list[Prompt]:
    """Return the distinct states of a game with a choice of commands, in random order."""
    prompts = dict[Prompt, None]()
    for situation in _visited(spec, seed, rng, cache, play):
        if len(situation.admissible) > 1:
            with suppress(ConfigError):  # a state with more text than a pack may hold
                prompts[Prompt(spec.family, situation)] = None
    drawn = list(prompts)
    return drawn if play == EXPLORE else [drawn[index] for index in rng.permutation(len(drawn))]


def _visited(spec: GameSpec, seed: int, rng: Generator, cache: Path, play: str) -> list[Situation]:
    """Return the states of `EPISODES_PER_GAME` episodes of uniform play, or of exploration in random order."""
    if play == EXPLORE:
        return explore(spec, seed, rng, cache)
    episodes = [play_scripted(spec, seed, uniform, rng, cache) for _ in range(EPISODES_PER_GAME)]
    return [turn.situation for episode in episodes for turn in episode.turns]


def _blocks(lines: Iterable[str]) -> list[tuple[int, list[str]]]:
    """Return the blocks that blank lines separate, each with the number of its first line."""
    blocks = list[tuple[int, list[str]]]()
    inside = False
    for number, line in enumerate(lines, 1):
        if line.strip() and not inside:
            blocks.append((number, []))
        inside = bool(line.strip())
        if inside:
            blocks[-1][1].append(line)
    return blocks


def _situation(block: Sequence[str]) -> Situation:
    goal = block[0].removeprefix(GOAL).strip() if block[0].startswith(GOAL) else ""
    rest = block[1:] if block[0].startswith(GOAL) else block
    commands = tuple(" ".join(line.removeprefix(COMMAND).split()) for line in rest if line.startswith(COMMAND))
    text = "\n".join(line for line in rest if not line.startswith(COMMAND))
    if not (goal or text):
        raise ConfigError("the situation has commands only: say what the player reads, or a goal")
    situation = Memory(goal, max_turns=1).see(text, commands, 0)
    if len(situation.reply.split()) > LONGEST_REPLY:
        raise ConfigError(
            f"a text of more than {LONGEST_REPLY} words must have a line '-= Name =-' with the name of the place: "
            "prompts do not show long replies"
        )
    return situation
