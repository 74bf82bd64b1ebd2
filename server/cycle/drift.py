"""Stage `drift`: a candidate that has moved too far from the base model outside of its games is refused untried."""

from __future__ import annotations

from dataclasses import dataclass

from ..events import Advance
from ..learner import DRIFTED, Drifting
from .distil import Trained
from .phases import record_form
from .run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Mean KL divergence of a candidate from the base model on neutral text, in nats a token."""

    kl: float


DRIFT = record_form(Drift)


def drifted(run: Run, cycle: int, name: str, candidate: Trained) -> str:
    """Return how far a candidate has drifted beyond the bound, as the run's record says it; empty if it has not.

    Parameters
    ----------
    name
        Of the phase.
    """
    bound, learner = run.config.server.max_base_kl, run.learner
    if not bound or not isinstance(learner, Drifting):
        return ""

    def work(advance: Advance) -> Drift:
        return Drift(kl=learner.drift(candidate.adapter))

    kl = run.phases.run(cycle, name, DRIFT, work).kl
    if kl <= bound:
        return ""
    return f"{DRIFTED}: mean KL {kl:.3f} nats a token on neutral text, and server.max-base-kl is {bound:g}"
