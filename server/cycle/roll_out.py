"""Stage `roll out`: after its promotion a version goes to the fleet in stages, one cycle each, while it holds.

Until the last stage, a cycle asks the devices that the version has reached and nobody else. They play for experience as
ever, which counts again in the cycles behind. Nothing is distilled; instead the gate compares the version before with
the current one, on these devices where it asks the fleet. The next stage begins unless too many devices have gone back,
or the version before does clearly better. Otherwise the stage is repeated, until it holds or an operator rolls back.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ...protocol.config import RunConfig
from ...protocol.fleet.membership import RunMode
from ...protocol.rollout import reached
from ..fleet_gate import NOBODY, paused
from ..gate import HOPELESS, Differences, Verdict
from .contender import Rollout
from .run import Run, State
from .trial import compare, play_block


def nodes_reached(run: Run, state: State, nodes: list[int]) -> list[int]:
    """Return the nodes that the current version goes to: at least one for each exchange, and enough for a sum."""
    if state.rollout is None:
        return nodes
    simulated = RunMode.of(run.config) is RunMode.SIMULATION
    least = max(run.config.strategy.exchanges, fewest_of_sum(run) if run.secure else 1)
    # Ids of nodes are random; in a simulation their order is not, and all are there.
    names = dict(enumerate(nodes)) if simulated else {node: node for node in nodes}
    return [names[name] for name in reached(list(names), state.version.name, state.rollout.share, least)]


def fewest_of_sum(run: Run) -> int:
    """Return the fewest nodes of which the cohort of an exchange can be drawn for a secure sum.

    Deployed devices ask for a cohort of the fewest nodes that the run waits for (`fedoel.server.operate.proposal`).
    """
    strategy, sizes = run.config.strategy, range(3, run.config.clients + 1)
    if RunMode.of(run.config) is RunMode.DEPLOYMENT:
        return strategy.min_available_nodes
    cohort = next(filter(run.safeguards.releasable, sizes), run.config.clients)
    return math.ceil(cohort * strategy.exchanges / strategy.fraction_train)


def roll_out(run: Run, state: State, rollout: Rollout, cycle: int) -> tuple[State, str]:
    """Decide whether the next stage of a version begins.

    Returns
    -------
    state, reason
        The state with the stage of the next cycle, and why.
    """
    contender = run.contender(rollout.before.adapter)
    first = play_block(run, state.version, cycle, "rollout", contender, 1)

    def holds(differences: Differences) -> Verdict:
        return stage_holds(run.config, differences)

    current, _, verdict = compare(run, state, cycle, "rollout", contender, first, holds, run.gate.blocks)
    after = rollout.next if verdict.passed else rollout
    comes = (f"{after} begins" if after else "it goes to the whole fleet") if verdict.passed else "it is repeated"
    return replace(state, evidence=current, rollout=after), f"{rollout}: {verdict.reason}; {comes}"


def stage_holds(config: RunConfig, differences: Differences) -> Verdict:
    """Whether a version holds on the devices that it has reached; never sure, so that all of them are asked.

    Parameters
    ----------
    differences
        Of the version before from the current one.
    """
    if not differences.episodes.any():
        return Verdict(False, NOBODY, sure=False)
    if verdict := paused(config.trial, differences):
        return replace(verdict, sure=False)
    gain, error = differences.mean(), differences.error()
    if gain > HOPELESS * error:
        return Verdict(False, f"the version before does better, merit {gain:+.3f}", sure=False)
    back = f"{differences.fallbacks:.0f} of {differences.devices:.0f} devices have gone back, and " * bool(
        differences.devices
    )
    return Verdict(True, f"{back}the version before has merit {gain:+.3f}", sure=False)
