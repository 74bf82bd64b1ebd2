"""Games on a square grid, in pure Python: Frozen Lake and Sokoban, with rules that the player has to find out."""
