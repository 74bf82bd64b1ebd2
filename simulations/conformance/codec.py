"""What the device half of a codec must do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...codecs.codec import Codec, HasParameters, load_codec
from ...codecs.context import TeacherContext, no_context
from ...codecs.encoder import Encoder, SendsWords
from ...codecs.tactics.coordinates import DIMENSION
from ...codecs.tactics.policy import TacticsPolicy, uniform_policy
from ...policies.abilities import ABILITIES, EMBEDDING
from ...policies.policy import LogProbs
from .checks import NotApplicable, demand, embedding_policy, go_through_a_run, situations, turns

Floats = NDArray[np.float64]
STEP = 1e-2


@dataclass(frozen=True, slots=True)
class Named:
    """An encoder, and its name in a run's configuration."""

    name: str
    encoder: Encoder

    @property
    def empty(self) -> TeacherContext:
        """The empty context, in the server's form."""
        return no_context(self.encoder.dimension)

    @property
    def ready(self) -> Codec:
        """The server half, with its public parameters if it has any; skips a codec that needs a language model."""
        self.check_runs(frozenset({EMBEDDING}))
        codec = load_codec(self.name)
        if isinstance(codec, HasParameters):
            return codec.with_parameters(codec.parameters(embedding_policy(), turns()))
        return codec

    def gradient_and_fisher(self, advantages: Floats, first: int = 0, last: int | None = None) -> tuple[Floats, Floats]:
        """Encode some turns of uniform play."""
        encoder, some = self.ready.encoder, list(turns()[first:last])
        policy = encoder.apply_context(embedding_policy(), self.empty.weights)
        return encoder.gradient_and_fisher(policy, some, advantages[first:last])

    def log_probs(self, context: NDArray[np.float32]) -> list[LogProbs]:
        """Log-probabilities of the uniform policy under a context."""
        return self.ready.encoder.apply_context(embedding_policy(), context).score(situations())

    def check_runs(self, offered: frozenset[str] = frozenset()) -> None:
        """Skip the check for a codec that needs more of a policy than is offered."""
        if self.encoder.required_abilities - offered:
            needs = " and ".join(sorted(self.encoder.required_abilities))
            raise NotApplicable(f"it needs a policy with {needs}: run fedoel simulate --set codec.name={self.name}")


def advantages(seed: int = 0) -> Floats:
    """Return a random advantage for each turn."""
    return np.random.default_rng(seed).normal(size=len(turns()))


def check_says_what_it_is(named: Named) -> None:
    """It has a name, a hash of what its coordinates mean, and a dimension."""
    encoder = named.encoder
    demand(isinstance(encoder.name, str) and encoder.name, f"name must be text, not {encoder.name!r}")
    demand(isinstance(encoder.vocabulary, str) and encoder.vocabulary, "vocabulary must be text, such as a hash")
    least = 0 if isinstance(encoder, SendsWords) else 1
    demand(type(encoder.dimension) is int and encoder.dimension >= least, f"dimension is {encoder.dimension!r}")
    required, additive = encoder.required_abilities, encoder.is_additive
    demand(required <= ABILITIES, f"requires {set(required)}; known are {', '.join(sorted(ABILITIES))}")
    demand(type(additive) is bool, f"is_additive must be true or false, not {additive!r}")
    demand(not (additive and required - {EMBEDDING}), f"an additive codec may require {EMBEDDING!r} and nothing else")


def check_has_a_server_half(named: Named) -> None:
    """Its server half is found, and has the members of a codec."""
    server_half = load_codec(named.name)
    members = ("encoder", "step", "teacher", "teacher_log_probs", "score_offsets", "lessons")
    missing = [member for member in members if not hasattr(server_half, member)]
    demand(not missing, f"{type(server_half).__name__} has no {', '.join(missing)}")


def check_gradient_and_fisher_are_vectors(named: Named) -> None:
    """Gradient and Fisher diagonal are finite vectors of its dimension, and the diagonal is not negative."""
    gradient, fisher = named.gradient_and_fisher(advantages())
    for name, vector in (("gradient", gradient), ("Fisher diagonal", fisher)):
        demand(vector.shape == (named.encoder.dimension,), f"the {name} has shape {vector.shape}")
        demand(np.isfinite(vector).all(), f"the {name} is not finite")
    demand((fisher >= 0).all(), "the Fisher diagonal is negative somewhere")
    demand(fisher.any(), "the Fisher diagonal of a dozen games is zero: no step is possible")


def check_gradient_and_fisher_are_sums_over_turns(named: Named) -> None:
    """Gradient and Fisher diagonal of all turns are the sums of those of two halves."""
    weights, half = advantages(), len(turns()) // 2
    whole, one, other = (named.gradient_and_fisher(weights, *part) for part in ((0, None), (0, half), (half, None)))
    for total, left, right in zip(whole, one, other, strict=True):
        demand(
            np.allclose(total, left + right, rtol=1e-3, atol=1e-4),
            "the sum over all turns is not that of its parts",
        )


def check_gradients_follow_the_advantage(named: Named) -> None:
    """Without advantages there is no gradient, and twice the advantages give twice the gradient."""
    nothing, once, twice = (named.gradient_and_fisher(scale * advantages())[0] for scale in (0.0, 1.0, 2.0))
    demand(not nothing.any(), "a gradient without advantages is not zero")
    demand(np.allclose(2 * once, twice, rtol=1e-3, atol=1e-5), "the gradient is not linear in the advantages")


def check_an_empty_context_changes_nothing(named: Named) -> None:
    """The zero context leaves the policy's probabilities unchanged."""
    bare = uniform_policy().score(situations())
    for one, other in zip(bare, named.log_probs(named.empty.weights), strict=True):
        demand(np.allclose(one, other, atol=1e-5), "the zero context changes probabilities")


def check_a_context_gives_probabilities(named: Named) -> None:
    """Under a context the probabilities of the admissible commands add up to one."""
    context = np.random.default_rng(1).normal(size=named.encoder.dimension).astype(np.float32)
    for answer, situation in zip(named.log_probs(context), situations(), strict=True):
        demand(answer.shape == (len(situation.admissible),), f"an answer has shape {answer.shape}")
        demand(abs(float(np.exp(answer.astype(np.float64)).sum()) - 1) < 1e-4, "probabilities do not add up to one")


def check_an_additive_context_adds_its_offsets(named: Named) -> None:
    """The server half gives the score offsets of additive contexts, for any policy; for others it gives None."""
    codec, rng = named.ready if named.encoder.is_additive else load_codec(named.name), np.random.default_rng(2)
    encoder = codec.encoder
    context = replace(named.empty, weights=rng.normal(size=encoder.dimension).astype(np.float32))
    offsets = codec.score_offsets(embedding_policy(), turns(), context)
    additive = encoder.is_additive
    demand((offsets is not None) == additive, f"is_additive is {additive}, but its server half has it otherwise")
    if offsets is None:
        return
    player = embedding_policy(TacticsPolicy("some", rng.normal(size=DIMENSION).astype(np.float32)))
    answers = encoder.apply_context(player, context.weights).score(situations())
    for bare, offset, answer in zip(player.score(situations()), offsets, answers, strict=True):
        scores = bare.astype(np.float64) + offset
        expected = scores - np.logaddexp.reduce(scores)
        demand(np.allclose(expected, answer, atol=1e-4), "a context does not add the offsets of its server half")


def check_the_gradient_leads_uphill(named: Named) -> None:
    """A small step along the gradient increases the objective."""
    weights = advantages()
    gradient, _ = named.gradient_and_fisher(weights)
    norm = float(np.linalg.norm(gradient))
    demand(norm, "random advantages give no gradient")
    up, down = (_objective(named, sign * STEP * gradient / norm, weights) for sign in (1, -1))
    demand(up > down, f"a step along the gradient changes the objective by {up - down:.3g}: is its sign wrong?")


def check_goes_through_whole_runs(named: Named) -> None:
    """A federation of eight devices completes two cycles with it, reproducibly to the bit."""
    named.check_runs()
    go_through_a_run(codec__name=named.name)


def _objective(named: Named, context: Floats, weights: Floats) -> float:
    """Sum over turns of advantage times log-probability of the command that was given."""
    log_probs = named.log_probs(context.astype(np.float32))
    return float(sum(a * p[turn.action] for a, p, turn in zip(weights, log_probs, turns(), strict=True)))
