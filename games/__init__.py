"""Text games that clients play: built from a `GameSpec` and a seed, deterministic, generated offline.

Importing this package is light; TextWorld itself is imported when the first of its games is built.
"""

from .families import FAMILIES, build_game
from .game import Game
from .splits import Split, for_split, game_seed
from .store import default_cache

__all__ = ["FAMILIES", "Game", "Split", "build_game", "default_cache", "for_split", "game_seed"]
