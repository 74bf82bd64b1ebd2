"""A codec to compare with: devices vote on the server's own answers to public prompts, after POPri (arXiv 2504.16438).

`codec.name = "fedoel.simulations.baselines.popri:POPRI"`, with `server.pack` and `server.prompts-per-cycle` 120.

The server draws a few answers to each prompt from its base model, once. A device ranks them by what its own episodes
have taught it, and votes for the best and against the worst. The teacher makes an answer likelier, the more devices
are for it; that is the optimum of DPO, which POPri trains with, and holds for these prompts only.

A vote is no policy gradient: it is not linear in the advantages, and does not grow with the number of games. Therefore
this codec does not pass all of `fedoel check-plugin`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...codecs.codec import ModelCodec
from ...codecs.log_linear import tilted
from ...codecs.tactics.coordinates import cells
from ...codecs.tactics.encoder import TacticsEncoder
from ...policies.policy import LogProbs, Policy
from ...protocol.errors import VectorError
from ...protocol.experience import Floats, Vector
from ...protocol.play import Turn
from ...protocol.situation import Situation

PROMPTS, SAMPLES, DAMPING = 120, 4, 3.0
NAMES = {"keys", "answers", "cues"}


def key_of(situation: Situation) -> tuple[float, ...]:
    """The first 64 bits of a prompt's hash, as four numbers that float32 holds exactly."""
    return tuple(np.frombuffer(hashlib.sha256(repr(situation).encode()).digest()[:8], "<u2").tolist())


@dataclass(frozen=True)
class VotedPolicy:
    """A policy that follows the votes where there are any."""

    inner: Policy
    offsets: Mapping[tuple[float, ...], tuple[NDArray[Any], NDArray[Any]]]
    abilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def version(self) -> str:
        """That of the policy without votes."""
        return self.inner.version

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return self.inner.tokens(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        answers, none = self.inner.score(situations), (np.zeros(0, int), np.zeros(0))
        for index, situation in enumerate(situations):
            offsets = np.zeros(len(situation.admissible))
            commands, votes = self.offsets.get(key_of(situation), none)
            offsets[commands] = votes
            answers[index] = tilted(answers[index], offsets)
        return answers


@dataclass(frozen=True)
class Votes:
    """The device half: one coordinate for each answer of each prompt; none are known before the server's request.

    `keys` names the prompts, shape (PROMPTS, 4); `answers` says which commands were drawn, `cues` their tactics, shapes
    (PROMPTS, SAMPLES), with -1 where a prompt has fewer commands. Parameters travel as floats.
    """

    arrays: Mapping[str, NDArray[Any]] | None = None
    name: str = "popri"
    dimension: int = PROMPTS * SAMPLES
    required_abilities: frozenset[str] = frozenset()
    is_additive: bool = True
    server: ClassVar[str] = "fedoel.simulations.baselines.popri:VotesCodec"

    @property
    def vocabulary(self) -> str:
        """Hash of the prompts and of the answers that were drawn."""
        names = [self.arrays[name].tobytes() for name in sorted(NAMES)] if self.arrays else [b"not drawn yet"]
        return hashlib.sha256(b"popri 1" + b"".join(names)).hexdigest()[:16]

    def with_parameters(self, parameters: Mapping[str, NDArray[Any]]) -> Votes:
        """Return the encoder with the prompts of a request; raises `VectorError` if they are none."""
        if set(parameters) != NAMES or any(array.shape[:1] != (PROMPTS,) for array in parameters.values()):
            raise VectorError(f"the codec 'popri' needs {sorted(NAMES)} of {PROMPTS} prompts")
        return replace(self, arrays=dict(parameters))

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        """Add the context to the scores of the answers that were drawn."""
        if self.arrays is None or not context.any():
            return policy
        keys, answers = self.arrays["keys"].tolist(), self.arrays["answers"].astype(int)
        rows = zip(keys, answers, answers >= 0, context.reshape(PROMPTS, SAMPLES), strict=True)
        return VotedPolicy(policy, {tuple(key): (drawn[some], votes[some]) for key, drawn, some, votes in rows})

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Return the votes, +1 for the best answer of a prompt and -1 for the worst, and how many there are."""
        if self.arrays is None:
            raise VectorError("the codec 'popri' has no prompts: a request of the server brings them")
        gradient, fisher = TacticsEncoder().gradient_and_fisher(policy, turns, advantages)
        cues, votes = self.arrays["cues"].astype(int), np.zeros((PROMPTS, SAMPLES))
        worth = np.where(cues < 0, 0.0, (gradient / (fisher + DAMPING))[cues])
        decided = np.flatnonzero((worth != 0).any(axis=1))
        votes[decided, worth[decided].argmax(axis=1)] += 1
        votes[decided, worth[decided].argmin(axis=1)] -= 1
        return votes.ravel(), np.abs(votes).ravel()


@dataclass(frozen=True, slots=True)
class VotesCodec(ModelCodec):
    """The server half: it draws the answers once, and tilts the policy by the sum of the votes."""

    encoder: Votes

    def parameters(self, policy: Policy, turns: Sequence[Turn]) -> Mapping[str, NDArray[Any]]:
        """Draw answers to the first prompts."""
        keys = np.zeros((PROMPTS, 4), np.float32)
        answers, cues = np.full((2, PROMPTS, SAMPLES), -1, np.float32)
        situations = [s for s in dict.fromkeys(turn.situation for turn in turns) if len(s.admissible) > 1][:PROMPTS]
        rng = np.random.default_rng(0)
        for row, (situation, log_probs) in enumerate(zip(situations, policy.score(situations), strict=True)):
            # The largest perturbed log-probabilities are samples without replacement (Gumbel top-k).
            drawn = np.argsort(-(log_probs + rng.gumbel(size=len(log_probs))))[:SAMPLES]
            keys[row], answers[row, : len(drawn)] = key_of(situation), drawn
            cues[row, : len(drawn)] = cells(situation)[drawn]
        return {"keys": keys, "answers": answers, "cues": cues}

    def with_parameters(self, parameters: Mapping[str, NDArray[Any]]) -> VotesCodec:
        """Return the codec with its prompts."""
        return replace(self, encoder=self.encoder.with_parameters(parameters))


POPRI = Votes()
