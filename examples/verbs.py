"""A codec in 17 lines: what is learned is a weight for each verb, for what the goal names, and for what was done here.

fedoel simulate --set codec.name=examples.verbs:Verbs --set policy.backend=tactics
"""

import numpy as np

from fedoel.codecs.features.encoder import FeatureEncoder
from fedoel.protocol.experience import Floats
from fedoel.protocol.situation import Situation

VERBS = ("go", "take", "drop", "open", "close", "examine", "look", "inventory", "eat", "cook", "cut", "prepare")


class Verbs(FeatureEncoder):
    """Three kinds of features of a command; a context is a weight for each."""

    name = "verbs"
    coordinates = (*VERBS, "another verb", "named in the goal", "done here before")

    def features(self, situation: Situation) -> Floats:
        """Return a row for every admissible command, and a column for every coordinate."""
        phi, goal = np.zeros((len(situation.admissible), len(self.coordinates))), situation.goal.strip(".").split()
        for row, command in zip(phi, situation.admissible, strict=True):
            verb, *rest = command.split()
            row[VERBS.index(verb) if verb in VERBS else len(VERBS)] = 1
            row[-2:] = any(word in goal for word in rest), command in situation.done_here
        return phi
