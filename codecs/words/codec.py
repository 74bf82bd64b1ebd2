"""The server's half of the codecs that send words: the teacher reads them in its prompt.

Several lists are made of the same words, each in an order of its own. A list drops what it has said already, and then
its oldest words until the rest fits; every turn is answered with one of the lists (K = 10 in arXiv 2602.12275).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...policies.abilities import behind, length
from ...policies.policy import LogProbs, Policy
from ...policies.several import several
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate
from ...protocol.play import Turn
from ...protocol.records.summary import Lesson
from ..context import Choice, TeacherContext
from .encoder import WordsEncoder


@dataclass(frozen=True, slots=True)
class WordsCodec:
    """Contexts are texts. There is no step to bound: a text is read or not."""

    encoder: WordsEncoder

    def solve(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Make the lists; what is said more often weighs no more."""
        words = list(dict.fromkeys(aggregate.words))
        orders = [
            np.arange(len(words)),
            *(np.random.default_rng(k).permutation(len(words)) for k in range(1, config.lists)),
        ]
        made = [self._list(policy, [words[place] for place in order], config.longest) for order in orders if words]
        none = np.zeros(0, np.float32)
        return TeacherContext(none, none, 0.0, tuple(dict.fromkeys(made)))

    @property
    def chooses(self) -> bool:
        """Whether there is a choice: no."""
        return False

    def choices(
        self, policy: Policy, turns: Sequence[Turn], context: TeacherContext, config: ContextConfig
    ) -> list[Choice]:
        """Have none."""
        return []

    def teacher(self, policy: Policy, context: TeacherContext) -> Policy:
        """Put the lists into the prompt, one a turn."""
        return several([behind(policy, words) for words in context.words]) if context.words else policy

    def answers(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs]:
        """Ask the policy with the lists."""
        return self.teacher(policy, context).score([turn.situation for turn in turns])

    def tilts(self, turns: Sequence[Turn], context: TeacherContext) -> list[LogProbs] | None:
        """What words do, only the model knows."""
        return None

    def lessons(self, context: TeacherContext) -> list[Lesson]:
        """Name what is in the lists, and in how many of them; whole games are not taken apart."""
        if self.encoder.raw:
            return []
        said = Counter(word for words in context.words for word in words.splitlines()[1:] if word)
        return [Lesson(word, 1.0, float(count)) for word, count in said.most_common()]

    def _list(self, policy: Policy, words: Sequence[str], longest: int) -> str:
        """Lay out the newest words that fit; one is always kept."""
        kept: list[str] = []
        for word in reversed(words):
            if kept and length(policy, self._laid_out([word, *kept])) > longest:
                break
            kept.insert(0, word)
        return self._laid_out(kept)

    def _laid_out(self, words: Sequence[str]) -> str:
        if self.encoder.raw:
            return "\n\n".join(["Earlier games:", *words, ""])
        return "\n".join(["Lessons from earlier games:", *(f"- {word}" for word in words), ""])
