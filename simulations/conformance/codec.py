"""Conformance checks of codecs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...codecs.codec import load_codec
from ...codecs.context import TeacherContext, no_context
from ...codecs.encoder import Encoder, SaysWords
from ...codecs.tactics.coordinates import DIMENSION
from ...codecs.tactics.policy import TacticsPolicy
from ...policies.abilities import ABILITIES
from ...policies.policy import LogProbs
from .checks import NotApplicable, demand
from .federation import go_through_a_run
from .played import situations, turns, uniform

Floats = NDArray[np.float64]
STEP = 1e-2


@dataclass(frozen=True, slots=True)
class Named:
    """An encoder, and its name in a run's configuration."""

    name: str
    encoder: Encoder

    @property
    def zeros(self) -> NDArray[np.float32]:
        """Weights of the empty context."""
        return self.empty.weights

    @property
    def empty(self) -> TeacherContext:
        """The empty context, in the server's form."""
        return no_context(self.encoder.dimension)

    def sums(self, advantages: Floats, first: int = 0, last: int | None = None) -> tuple[Floats, Floats]:
        """Encode a slice of the turns of uniform play."""
        self.check_runs()
        chosen = list(turns()[first:last])
        return self.encoder.sums(self.encoder.under(uniform(), self.zeros), chosen, advantages[first:last])

    def answers(self, context: NDArray[np.float32]) -> list[LogProbs]:
        """Return the log-probabilities of the uniform policy with a context."""
        self.check_runs()
        return self.encoder.under(uniform(), context).score(situations())

    def check_runs(self) -> None:
        """Raise `NotApplicable` for a codec that needs a language model."""
        if self.encoder.needs:
            needs = " and ".join(sorted(self.encoder.needs))
            raise NotApplicable(f"it needs a policy with {needs}: run fedoel simulate --set codec.name={self.name}")


def advantages(seed: int = 0) -> Floats:
    """Return a random advantage for each turn."""
    return np.random.default_rng(seed).normal(size=len(turns()))


def says_what_it_is(named: Named) -> None:
    """It has a name, a hash of what its coordinates mean, and a dimension."""
    encoder = named.encoder
    demand(isinstance(encoder.name, str) and encoder.name, f"name must be text, not {encoder.name!r}")
    demand(isinstance(encoder.vocabulary, str) and encoder.vocabulary, "vocabulary must be text, such as a hash")
    least = 0 if isinstance(encoder, SaysWords) else 1
    demand(type(encoder.dimension) is int and encoder.dimension >= least, f"dimension is {encoder.dimension!r}")
    demand(encoder.needs <= ABILITIES, f"needs {set(encoder.needs)}; known are {', '.join(sorted(ABILITIES))}")
    demand(type(encoder.adds) is bool, f"adds must be true or false, not {encoder.adds!r}")
    demand(not (encoder.adds and encoder.needs), "a codec that only adds to scores cannot need abilities of a policy")


def has_a_half_on_the_server(named: Named) -> None:
    """Its server half is found, and has all methods of a codec."""
    half = load_codec(named.name)
    missing = [
        part for part in ("encoder", "solve", "teacher", "answers", "tilts", "lessons") if not hasattr(half, part)
    ]
    demand(not missing, f"{type(half).__name__} has no {', '.join(missing)}")


def sums_are_vectors(named: Named) -> None:
    """Gradient and Fisher diagonal are finite vectors of its dimension, and the diagonal is not negative."""
    gradient, fisher = named.sums(advantages())
    for part in (gradient, fisher):
        demand(part.shape == (named.encoder.dimension,), f"a sum has shape {part.shape}")
        demand(np.isfinite(part).all(), "a sum is not finite")
    demand((fisher >= 0).all(), "the Fisher diagonal is negative somewhere")
    demand(fisher.any(), "the Fisher diagonal of a dozen games is zero: no step is possible")


def sums_add_up(named: Named) -> None:
    """Sums of two halves of the turns add up to the sums of all."""
    weights, half = advantages(), len(turns()) // 2
    whole, one, other = (named.sums(weights, *part) for part in ((0, None), (0, half), (half, None)))
    for total, left, right in zip(whole, one, other, strict=True):
        demand(
            np.allclose(total, left + right, rtol=1e-3, atol=1e-4),
            "the sum over all turns is not that of its parts",
        )


def gradients_follow_the_advantage(named: Named) -> None:
    """The gradient is linear in the advantages."""
    nothing, once, twice = (named.sums(scale * advantages())[0] for scale in (0.0, 1.0, 2.0))
    demand(not nothing.any(), "the gradient for zero advantages is not zero")
    demand(np.allclose(2 * once, twice, rtol=1e-3, atol=1e-5), "the gradient is not linear in the advantages")


def an_empty_context_changes_nothing(named: Named) -> None:
    """An empty context does not change a policy's answers."""
    bare = uniform().score(situations())
    for one, other in zip(bare, named.answers(named.zeros), strict=True):
        demand(np.allclose(one, other, atol=1e-5), "an empty context changes the answers")


def a_context_gives_probabilities(named: Named) -> None:
    """Under a context the probabilities of the admissible commands add up to one."""
    context = np.random.default_rng(1).normal(size=named.encoder.dimension).astype(np.float32)
    for answer, situation in zip(named.answers(context), situations(), strict=True):
        demand(answer.shape == (len(situation.admissible),), f"an answer has shape {answer.shape}")
        demand(abs(float(np.exp(answer.astype(np.float64)).sum()) - 1) < 1e-4, "probabilities do not add up to one")


def a_context_adds_if_it_says_so(named: Named) -> None:
    """If contexts only add to scores, `tilts` gives the added scores for any policy; otherwise it gives None."""
    encoder, rng = named.encoder, np.random.default_rng(2)
    context = replace(named.empty, weights=rng.normal(size=encoder.dimension).astype(np.float32))
    added = load_codec(named.name).tilts(turns(), context)
    demand((added is not None) == encoder.adds, f"adds is {encoder.adds}, but tilts of the server half contradicts it")
    if added is None:
        return
    player = TacticsPolicy("some", rng.normal(size=DIMENSION).astype(np.float32))
    answers = encoder.under(player, context.weights).score(situations())
    for bare, tilt, answer in zip(player.score(situations()), added, answers, strict=True):
        scores = bare.astype(np.float64) + tilt
        expected = scores - np.logaddexp.reduce(scores)
        demand(np.allclose(expected, answer, atol=1e-4), "a context changes scores by something other than its tilts")


def the_gradient_leads_uphill(named: Named) -> None:
    """A small step along the gradient increases the objective."""
    weights = advantages()
    gradient, _ = named.sums(weights)
    norm = float(np.linalg.norm(gradient))
    demand(norm, "random advantages give no gradient")
    up, down = (_objective(named, sign * STEP * gradient / norm, weights) for sign in (1, -1))
    demand(up > down, f"a step along the gradient changes the objective by {up - down:.3g}: is its sign wrong?")


def goes_through_whole_runs(named: Named) -> None:
    """A federation of eight devices completes two cycles with it, reproducibly to the bit."""
    named.check_runs()
    go_through_a_run(codec__name=named.name)


def _objective(named: Named, context: Floats, weights: Floats) -> float:
    """Return the sum over turns of the advantage times the log-probability of the chosen command."""
    answers = named.answers(context.astype(np.float32))
    return float(sum(a * s[turn.action] for a, s, turn in zip(weights, answers, turns(), strict=True)))


CHECKS = (
    says_what_it_is,
    has_a_half_on_the_server,
    sums_are_vectors,
    sums_add_up,
    gradients_follow_the_advantage,
    an_empty_context_changes_nothing,
    a_context_gives_probabilities,
    a_context_adds_if_it_says_so,
    the_gradient_leads_uphill,
    goes_through_whole_runs,
)
