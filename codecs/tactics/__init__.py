"""The codec `tactics`: weights of public, hand-made (cue, verb) cells; and the policy that has no other parameters."""
