"""Public rollouts of a cycle: the server plays its rehearsal games as the cohort plays, once for every exchange."""

from __future__ import annotations

from collections.abc import Sequence

from ...codecs.context import TeacherContext, no_context
from ...codecs.encoder import count, encode
from ...protocol.experience import ExperienceVector, Vector
from ...protocol.play import Trajectory
from .collect import numbered
from .run import Run, Version


class PublicRollouts:
    """Rollouts of one version in one cycle, in memory.

    They are played in the order of the exchanges, and all of them again after a resume: the last bits of what a model
    computes depend on what its prefix cache holds, and a resumed run must give the same result as one without a break.
    """

    def __init__(self, run: Run, version: Version, cycle: int) -> None:
        self.run, self.version, self.cycle = run, version, cycle
        self._played: list[list[Trajectory]] = []

    def of(self, exchange: int, contexts: Sequence[TeacherContext]) -> list[Trajectory]:
        """Return the rollouts of an exchange.

        Parameters
        ----------
        contexts
            The contexts that the exchanges up to this one were played under.
        """
        if not self._played:
            self.run.learner.forget()
        while len(self._played) < exchange:
            number = len(self._played) + 1
            policy = self.run.codec.teacher(self.run.learner.policy(self.version.adapter), contexts[number - 1])
            purpose = numbered("rehearsal", number)
            self._played.append(self.run.public.play(policy, self.run.plan.rehearsal, purpose, self.cycle))
        return self._played[exchange - 1]

    def without_context(self) -> list[Trajectory]:
        """Return the rollouts of the first exchange, which are those of the bare policy."""
        return self.of(1, [no_context(self.run.codec.encoder.dimension)])

    def baseline(self, exchange: int, contexts: Sequence[TeacherContext]) -> Vector:
        """Mean return-to-go by family and step in an exchange, shape ``(families, horizon)``."""
        counters = count(self.of(exchange, contexts), self.run.spec(self.version.name), self.run.config.codec.discount)
        return counters.baseline()

    def reference(self, exchange: int, contexts: Sequence[TeacherContext]) -> ExperienceVector:
        """Encode the rollouts of an exchange as a device does, without clipping."""
        run, played = self.run, self.of(exchange, contexts)
        policy = run.codec.teacher(run.learner.policy(self.version.adapter), contexts[exchange - 1])
        spec, discount = run.spec(self.version.name), run.config.codec.discount
        return encode(run.codec.encoder, policy, played, spec, self.baseline(exchange, contexts), discount)
