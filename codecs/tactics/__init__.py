"""The codec `tactics`: weights of public, hand-made (cue, verb) cells; and the player that has nothing else."""
