"""Text games that clients play: deterministic, built offline from a `GameSpec` and a seed.

Importing this package does not import TextWorld; preparing or starting one of its games does.
"""

from ..protocol.host.cache import default_cache
from .families import FAMILIES, build_game
from .game import Game
from .splits import Split, for_split, game_seed

__all__ = ["FAMILIES", "Game", "Split", "build_game", "default_cache", "for_split", "game_seed"]
