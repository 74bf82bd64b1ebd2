"""Generate a TextWorld game from a seed and compile it, leaving process-wide state unchanged."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...protocol.errors import GameError
from ...protocol.play import Setting
from ..random_state import preserved_random_state

ATTEMPTS = 50
"""Generation fails for some seeds (e.g. treasure hunter from level 9 on): so many derived seeds are tried in turn."""

_CHALLENGES = {
    "coin-collector": "tw-coin_collector",
    "treasure-hunter": "tw-treasure_hunter",
    "cooking": "tw-cooking",
}

# TextWorld's own options: one error style, no warnings, strict, Z-machine version 8, no temporary files.
_INFORM6_OPTIONS = "-E2wSv8F0"

# TextWorld's generator uses process-wide state; only one thread at a time may use it.
_TEXTWORLD_LOCK = threading.RLock()


def generate(family: str, settings: Mapping[str, Setting], seed: int, story: Path) -> None:
    """Generate a game and write its story file (``.z8``) and the ``.json`` beside it.

    Raises
    ------
    GameError
        If no derived seed gives a game, or TextWorld's compiler refuses it.
    """
    with borrowed_textworld(seed) as textworld:
        game = _generate_game(textworld, family, settings, seed)
        try:
            compile_game(game, story)
        except GameError as error:
            _raise_if_full(story.parent, Path(tempfile.gettempdir()))
            raise GameError(f"TextWorld cannot compile {family} {dict(settings)} seed {seed}: {error}") from error


@contextmanager
def borrowed_textworld(seed: int = 0) -> Iterator[Any]:
    """Import TextWorld, and on exit restore the global state that it changes: random generators and class attributes.

    Within the context, two slow steps of TextWorld are replaced: each knowledge base is loaded once per process, and
    `set_walkthrough` simulates a walkthrough without compiling the game.
    """
    with _TEXTWORLD_LOCK, preserved_random_state(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter warns about every TextWorld game that it is unknown
        textworld = importlib.import_module("textworld")
        knowledge = importlib.import_module("textworld.generator.data").KnowledgeBase
        original_load, original_seed = knowledge.__dict__["load"], textworld.g_rng.seed
        knowledge.load = staticmethod(functools.partial(_load_once, original_load.__func__, knowledge))
        maker, original_walkthrough = textworld.GameMaker, textworld.GameMaker.set_walkthrough
        maker.set_walkthrough = set_walkthrough
        textworld.g_rng.set_seed(seed)
        try:
            yield textworld
        finally:
            knowledge.load = original_load
            maker.set_walkthrough = original_walkthrough
            textworld.g_rng.set_seed(original_seed)


@functools.cache
def _load_once(load: Any, knowledge: Any, *paths: str | None, **named_paths: str | None) -> Any:
    return load(knowledge, *paths, **named_paths)


def _generate_game(textworld: Any, family: str, settings: Mapping[str, Setting], seed: int) -> Any:
    """Generate a game from the first derived seed for which generation succeeds."""
    make = importlib.import_module("textworld.challenges").CHALLENGES[_CHALLENGES[family]][1]
    for attempt in range(ATTEMPTS):
        options = textworld.GameOptions()
        options.seeds = _textworld_seeds(seed, attempt)
        options.grammar.only_last_action = True  # otherwise the objective lists the whole walkthrough
        # The generators raise QuestGenerationError, but also fail on draws from empty lists when no placement is left.
        with suppress(textworld.generator.QuestGenerationError, ValueError, KeyError, IndexError, AssertionError):
            return make(_challenge_settings(family, settings), options)
    raise GameError(f"{family} {dict(settings)}: no game for seed {seed} in {ATTEMPTS} attempts; take another seed")


def _textworld_seeds(seed: int, attempt: int) -> dict[str, int]:
    """Derive TextWorld's four seeds, distinct for every pair (seed, attempt)."""
    words = np.random.SeedSequence([seed, attempt]).generate_state(4)
    return dict(zip(("map", "objects", "quest", "grammar"), map(int, words), strict=True))


def _challenge_settings(family: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    if family != "cooking":
        return dict(settings)
    split = settings["split"]
    return {**settings, "split": None if split == "all" else split, "recipe_seed": 0}


def _raise_if_full(*folders: Path) -> None:
    """Raise `OSError` if a folder's disk is full; the compiler reports only that it failed."""
    for folder in folders:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 1_000_000)
            probe.flush()
            os.fsync(probe.fileno())


def compile_game(game: Any, story: Path) -> None:
    """Write the story file (``.z8``) and, beside it, the ``.json`` that TextWorld reads the game's logic from.

    The two compilers are those that TextWorld bundles: Inform 7, then Inform 6. TextWorld's own function does the same,
    but also has Inform 7 write its HTML index of about a hundred pages, which takes a fifth of the compile time.

    Raises
    ------
    GameError
        If a compiler refuses the game; the message ends with the compiler's last output.
    """
    inform7 = importlib.import_module("textworld.generator.inform7.world2inform7")
    source = inform7.generate_inform7_source(game)
    game.save(str(story.with_suffix(".json")))
    home = Path(os.environ.get("INFORM_HOME", inform7.I7_DEFAULT_PATH)) / "share" / "inform7"
    with tempfile.TemporaryDirectory(prefix="fedoel-inform-") as temporary:
        project = Path(temporary)
        (project / "Source").mkdir()
        (project / "Source" / "story.ni").write_text(source, encoding="utf-8")
        (project / "uuid.txt").touch()  # Inform 7 requires this file
        # Inform 7 cannot use paths that are not in ASCII, as TMPDIR may be: both compilers run in the project's folder
        # and are given names that are relative to it.
        (project / "inform").symlink_to(home.absolute())
        compilers = project / "inform" / "Compilers"
        options = ("-noindex", "-noprogress", "--internal", "inform/Internal", f"--format={story.suffix}")
        _run(project, compilers / "ni", *options, "--project", ".")
        _run(project, compilers / "inform6", _INFORM6_OPTIONS, "Build/auto.inf", story.name)
        shutil.move(project / story.name, story)


def _run(folder: Path, *command: str | Path) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd=folder)
    if result.returncode:
        output = result.stdout.decode(errors="replace").strip()[-400:]
        raise GameError(f"{Path(command[0]).name} ended with {result.returncode}: {output}")


def set_walkthrough(maker: Any, commands: Sequence[str]) -> None:
    """Record, for each event that wins a quest, the actions and commands that led to it.

    Replaces TextWorld's own ``GameMaker.set_walkthrough``, which compiles the game, plays the walkthrough in the
    interpreter to see which action each command triggers, and discards the compiled game. That takes half of the time
    of generating a coin collector or cooking game. The logical state that TextWorld tracks alongside contains the same
    information.

    Raises
    ------
    ValueError
        If the game ends before the last command; TextWorld raises the same.
    """
    game = maker.build()
    # Reading the objective generates and fixes it, as compiling would; it must not mention this walkthrough.
    assert game.objective is not None
    progress = importlib.import_module("textworld.generator.game").GameProgression(game)
    command_names = importlib.import_module("textworld.generator.inform7").Inform7Game(game)
    actions: list[Any] = []
    triggered: list[tuple[Any, list[Any], Sequence[str]]] = []
    pending = [event for quest in progress.quest_progressions for event in quest.win_events if not event.triggered]
    for count, command in enumerate(commands, start=1):
        if progress.done:
            raise ValueError("Game has ended before finishing playing all commands.")
        action = _action_of(command, progress.valid_actions, command_names)
        if action is not None:
            progress.update(action)
        # TextWorld records a command without effect, such as opening an open door, as a repeat of the last action.
        actions.append(action if action is not None else actions[-1])
        triggered += [(event.event, list(actions), commands[:count]) for event in pending if event.triggered]
        pending = [event for event in pending if not event.triggered]
    for event, event_actions, event_commands in triggered:
        event.actions, event.commands = event_actions, event_commands


def _action_of(command: str, actions: Iterable[Any], command_names: Any) -> Any | None:
    """Return the action that a command triggers: of several, the one with the most preconditions."""
    ranked = sorted(actions, key=lambda action: len(action.preconditions), reverse=True)
    commands = command_names.gen_commands_from_actions(ranked)
    return next((action for text, action in zip(commands, ranked, strict=True) if text == command), None)
