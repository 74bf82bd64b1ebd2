"""The server half of the codecs that send words: the teacher has them in its prompt.

Several prompt contexts are made of the same texts, each in another random order. A context drops duplicates, and then
its oldest texts until the rest fits; every turn is answered under one of the contexts (K = 10 in arXiv 2602.12275).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...policies.abilities import behind, length
from ...policies.policy import Policy
from ...policies.routed import routed
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate
from ...protocol.play import Turn
from ...protocol.records.summary import Lesson
from ..codec import ModelCodec
from ..context import TeacherContext
from .encoder import WordsEncoder


@dataclass(frozen=True, slots=True)
class WordsCodec(ModelCodec):
    """Contexts are texts in the prompt; no trust region applies."""

    encoder: WordsEncoder

    def step(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: TeacherContext
    ) -> TeacherContext:
        """Build the contexts; duplicates among the texts count once."""
        texts = list(dict.fromkeys(aggregate.words))
        orders = [
            np.arange(len(texts)),
            *(np.random.default_rng(k).permutation(len(texts)) for k in range(1, config.lists)),
        ]
        contexts = [self._newest(policy, [texts[i] for i in order], config.longest) for order in orders if texts]
        no_weights = np.zeros(0, np.float32)
        return TeacherContext(no_weights, no_weights, 0.0, tuple(dict.fromkeys(contexts)))

    def teacher(self, policy: Policy, context: TeacherContext) -> Policy:
        """Return a policy that answers each situation with one of the contexts in its prompt."""
        return routed([behind(policy, words) for words in context.words]) if context.words else policy

    def lessons(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[Lesson]:
        """Return the lessons in the contexts, and how many contexts hold each; none where the texts are whole games."""
        if self.encoder.raw:
            return []
        counts = Counter(line for text in context.words for line in text.splitlines()[1:] if line)
        return [Lesson(line, 1.0, float(count)) for line, count in counts.most_common()]

    def _newest(self, policy: Policy, texts: Sequence[str], max_tokens: int) -> str:
        """Render the newest texts that fit into so many tokens; at least one is kept."""
        kept: list[str] = []
        for text in reversed(texts):
            if kept and length(policy, self._rendered([text, *kept])) > max_tokens:
                break
            kept.insert(0, text)
        return self._rendered(kept)

    def _rendered(self, texts: Sequence[str]) -> str:
        if self.encoder.raw:
            return "\n\n".join(["Earlier games:", *texts, ""])
        return "\n".join(["Lessons from earlier games:", *(f"- {text}" for text in texts), ""])
