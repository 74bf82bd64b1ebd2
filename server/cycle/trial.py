"""Trials: a contender against the current version on the gate's games, block by block until the gate is sure."""

from __future__ import annotations

from collections.abc import Callable

from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import Stats
from ..gate import Differences, Evidence, Verdict, sample_of
from .contender import Contender, Version
from .phases import Form, Outcome
from .run import Run, State

Decide = Callable[[Differences], Verdict]
"""The gate's decision, given how the contender differs from the current version."""


EVIDENCE = Form(
    lambda evidence: Outcome({"gate": {"candidate": to_json(evidence.stats)}}, evidence.sample.arrays()),
    lambda outcome: Evidence(sample_of(outcome.arrays), from_json(Stats, outcome.values["gate"]["candidate"])),
)


def compare(
    run: Run, state: State, cycle: int, name: str, contender: Contender, first: Evidence, decide: Decide, most: int
) -> tuple[Evidence, Evidence, Verdict]:
    """Compare a contender with the current version, on further blocks while the gate is not sure.

    Parameters
    ----------
    name
        Of the phase that played the contender's first block.
    first
        What that phase has seen.
    most
        How many blocks may be played.

    Returns
    -------
    current, contender, verdict
        What the gate has seen of both, and its decision. A block that the current version has played once, for an
        earlier decision about it, is not played again.
    """
    current, evidence = state.evidence, first
    while True:
        verdict = decide(evidence.sample.against(current.sample))
        if verdict.sure or evidence.blocks >= most:  # what cannot be tried has had all blocks already
            return current, evidence, verdict
        block = evidence.blocks + 1
        evidence = evidence.with_block(play_block(run, state.version, cycle, f"{name}-block-{block}", contender, block))
        if current.blocks < block:
            again = run.contender(state.version.adapter)
            played = play_block(run, state.version, cycle, f"gate-current-{block}", again, block)
            current = current.with_block(played)


def play_block(run: Run, current: Version, cycle: int, name: str, contender: Contender, block: int) -> Evidence:
    """Let the gate try a contender on a block, as a phase of this name."""
    return run.phases.run(
        cycle, name, EVIDENCE, lambda advance: run.gate.evidence(cycle, current, contender, block, advance),
        run.gate.episodes,
    )  # fmt: skip
