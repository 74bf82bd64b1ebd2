"""Stage `abilities`: a candidate that has lost what its base model could do outside of games is refused untried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...protocol.config import ServerConfig
from ..events import Advance
from ..learner import LOST
from .distil import Trained
from .phases import record_form
from .run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What the probes say of a candidate and, with names that begin with ``base_``, of the base model."""

    probes: Mapping[str, float]


ABILITIES = record_form(Abilities)


def lost(run: Run, cycle: int, name: str, candidate: Trained) -> str:
    """Return what a candidate has lost beyond its bounds, as the run's record says it; empty if it has not.

    Nothing is probed in a run without bounds, and without a language model there is nothing to lose.

    Parameters
    ----------
    name
        Of the phase.
    """
    config = run.config.server
    if not config.max_perplexity and not config.min_instructions:
        return ""

    def work(advance: Advance) -> Abilities:
        return Abilities(probes=run.learner.probe(candidate.adapter))

    probes = run.phases.run(cycle, name, ABILITIES, work).probes
    what = [*_perplexity(config, probes), *_instructions(config, probes)]
    return f"{LOST}: {'; '.join(what)}" if what else ""


def _perplexity(config: ServerConfig, probes: Mapping[str, float]) -> list[str]:
    if not config.max_perplexity or "perplexity" not in probes:
        return []
    now, base = probes["perplexity"], probes["base_perplexity"]
    if now <= config.max_perplexity * base:  # NaN is not, and refuses
        return []
    return [
        f"perplexity {now:.1f} on neutral text, the base model's is {base:.1f}, and server.max-perplexity is "
        f"{config.max_perplexity:g}"
    ]


def _instructions(config: ServerConfig, probes: Mapping[str, float]) -> list[str]:
    if not config.min_instructions or "instructions" not in probes:
        return []
    now, base = probes["instructions"], probes["base_instructions"]
    if now >= config.min_instructions * base:
        return []
    return [
        f"{now:.1%} of the instructions followed, by the base model {base:.1%}, and server.min-instructions is "
        f"{config.min_instructions:g}"
    ]
