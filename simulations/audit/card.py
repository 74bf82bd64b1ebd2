"""Attack the protections of a scenario; the results are a privacy card, in Markdown and JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...codecs.codec import load_codec
from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.host.cache import cache_folder
from ...protocol.host.files import write_whole
from ...protocol.play import specs_from_text
from ...protocol.records.json_codec import to_json
from ...protocol.trials import TrialTerms, most_trials
from ...server.app import check
from ...server.public.game_plan import GamePlan
from ...server.safeguards import RunSafeguards
from ..prompts import with_any_pack, with_pack
from .active import attack
from .against import Holds, against
from .attacks import FAMILIES, VIEWS, Finding, attribute, membership, play_pool, trial_pool
from .leaks import Surveillance, watch
from .mechanism import Bound, Mechanism, audit_mechanism, audited
from .planted import Extraction, extractions, lora_extraction
from .target import ActiveAttack, Target

PROTECTED = VIEWS[2:]
CONFIDENCE, CELLS, SPARE = 0.999, 2048, 40
FEWEST_TRIALS = 100


@dataclass(frozen=True, slots=True)
class Card:
    """The results of one audit; of a run without noise, those of active attacks only."""

    promise: Mapping[str, Any]
    bounds: Sequence[Bound]
    findings: Sequence[Finding]
    extractions: Sequence[Extraction]
    surveillance: Surveillance | None
    active: Sequence[ActiveAttack] = ()
    holds: Sequence[Holds] = ()

    @property
    def problems(self) -> list[str]:
        """Descriptions of everything that violates the terms; empty if nothing does."""
        problems = [
            f"{bound.attack}: at least epsilon {max(bound.guesses, bound.gaussian):.2f}, promised {bound.claimed:.2f}"
            for bound in self.bounds
            if not bound.holds
        ]
        problems += [
            f"{finding.attack} from the {finding.view}: AUROC {finding.auroc:.3f}"
            for finding in self.findings
            if finding.exposed and finding.view in PROTECTED and not finding.attack.startswith("membership in a cohort")
        ]
        problems += [
            f"{extraction.extracted} of {extraction.planted} secrets extracted from the {extraction.view}"
            for extraction in self.extractions
            if extraction.extracted and extraction.view in ("single vector", "noisy sum")
        ]
        problems += [f"{made.attack}: {made.outcome}" for made in self.active if made.broken]
        run = self.surveillance
        problems += [f"a game is quoted in {leak}" for leak in (run.leaks if run else ())]
        if run and run.unmasked != run.journaled:
            problems.append(f"{run.unmasked} sums were unmasked, {run.journaled} are in the ledger")
        return problems

    def markdown(self) -> str:
        """Return the card in Markdown."""
        verdict = "\n".join(f"- {problem}" for problem in self.problems) or "Every promise held in this audit."
        promise = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in self.promise.items())
        holds = "\n".join(f"| {line.who} | {line.sees} |" for line in self.holds)
        active = "\n".join(f"| {made.attack} | {made.outcome} | {_promised(made)} |" for made in self.active)
        page = PAGE.format(verdict=verdict, promise=promise, holds=holds, active=active)
        return page + self._passive(self.surveillance) if self.surveillance else page

    def _passive(self, run: Surveillance) -> str:
        """Return the part of the card about a run with noise."""
        bounds = "\n".join(
            f"| {b.attack} | {b.claimed:.2f} | {b.guesses:.2f} | {b.gaussian:.2f} |" for b in self.bounds
        )
        findings = "\n".join(
            f"| {f.attack} | {f.view} | {f.auroc:.3f} | {100 * f.detected:.1f} % |" for f in self.findings
        )
        secrets = "\n".join(f"| {e.view} | {e.extracted} of {e.planted} |" for e in self.extractions)
        return WITH_NOISE.format(
            bounds=bounds, findings=findings, secrets=secrets, heard=run.heard, leaks=len(run.leaks),
            unmasked=run.unmasked, journaled=run.journaled,
        )  # fmt: skip

    def write(self, folder: Path) -> list[Path]:
        """Write ``privacy-card.md`` and ``privacy-card.json``, and return their paths."""
        page, data = folder / "privacy-card.md", folder / "privacy-card.json"
        write_whole(page, self.markdown().encode())
        write_whole(data, json.dumps({**asdict(self), "problems": self.problems}, indent=1).encode())
        return [page, data]


def audit(config: RunConfig, trials: int, with_updates: bool) -> Card:
    """Make every attack once.

    Parameters
    ----------
    trials
        Of each attack on membership and attributes.
    with_updates
        Whether to attack updates of LoRA weights too, for comparison: it loads the language model.

    Raises
    ------
    ConfigError
        If there are too few trials, or the configuration is unusable.
    """
    if trials < FEWEST_TRIALS:
        raise ConfigError(
            f"--trials must be at least {FEWEST_TRIALS}, not {trials}: fewer trials of an attack say nothing"
        )
    with tempfile.TemporaryDirectory(prefix="fedoel-audit-") as folder:
        target = Target(config, Path(folder))
        active = attack(target)
        holds = list(against(target, active))
        promise = to_json(target.safeguards.describe(target.secure))
    card = Card(promise, [], [], [], None, active, holds)
    return _with_noise(card, config, trials, with_updates) if config.privacy.mechanism == "distributed" else card


def _with_noise(card: Card, config: RunConfig, trials: int, with_updates: bool) -> Card:
    """Add the attacks on sums with noise, and a run under surveillance."""
    cache = cache_folder(config)
    check(with_any_pack(config), cache)
    safeguards, encoder = RunSafeguards(config), load_codec(config.codec.name).encoder
    plan, delta = safeguards.plan(GamePlan.of(config).vector_spec(config, encoder, "audit")), config.privacy.delta
    canaries = audited(plan, CELLS)
    bounds = audit_mechanism(canaries, Mechanism(canaries), delta, CONFIDENCE, config.seed)
    pool = play_pool(config, plan.minimum + SPARE, cache)
    findings = [
        *membership(pool, plan, safeguards.chance(), trials, config.seed),
        *membership(pool, plan, 1.0, trials, config.seed),
        *attribute(pool, plan, trials, config.seed),
    ]
    if most_trials(config):
        families = tuple(spec.family for spec in specs_from_text(FAMILIES))
        trial_plan = safeguards.plan(TrialTerms.of_run(config).spec("audit", families))
        answers = trial_pool(config, trial_plan.minimum + SPARE, cache)
        findings += membership(answers, trial_plan, safeguards.chance(answers.vectors[0].spec), trials, config.seed)
        findings += attribute(answers, trial_plan, trials, config.seed)
    with tempfile.TemporaryDirectory(prefix="fedoel-audit-") as folder:
        surveillance = watch(with_pack(config, cache), Path(folder) / "run")
    secrets = extractions(plan, config.seed)
    if with_updates:
        secrets.insert(2, lora_extraction(config.policy, cache, config.seed))
    return replace(card, bounds=bounds, findings=findings, extractions=secrets, surveillance=surveillance)


def _promised(made: ActiveAttack) -> str:
    if not made.recovered:
        return "holds"
    return "BROKEN" if made.promised else "not promised"


PAGE = """# Privacy card

{verdict}

## Privacy terms

| | |
|---|---|
{promise}

## Against whom

| who | sees of a device |
|---|---|
{holds}

## A server that cheats

The server has every key of the fleet and keeps to no rule. Devices run their own code, with the settings that the fleet
would propose to their owners. Cohorts are small, with the minimum, graph and noise that the run makes for their size,
and a `trust.least-cohort` that is not larger than this minimum; keys are hidden in larger ones, whose terms the server
makes as devices accept them.

| attack | outcome | promise |
|---|---|---|
{active}
"""

WITH_NOISE = """
## Noise

Epsilon is that of adding or removing one device, over the whole run. It counts on sampling (`sample` of `population`
devices), and so holds against whoever sees what is published, versions, manifests and cards, and does not know which
devices were drawn: these files contain no exact size of a cohort. The server and the network know who takes part, and
the devices of a cohort learn its size and each other's keys. Against them the larger epsilon without sampling
holds, which `fedoel privacy plan` prints, and for the vector that a device sends, not for whether it takes part.

## Lower bounds on epsilon

Each canary sends a vector of ten times the clipping norm and adds no noise; each is in a sum with probability one half.
Bounds hold at 99.9 % confidence, against an attacker who knows the cohort. A bound above the promised epsilon violates
the terms.

| attack | promised | bound from guesses | bound from Gaussian scores |
|---|---|---|---|
{bounds}

## Membership and attribute inference

The attacker knows every vector of a pool of devices. Half of the trials are positive; an AUROC of 0.5 is chance. The
first row of each attack must succeed: a single vector is what a server sees without secure aggregation.

| attack | observed | AUROC | true positives at 0.1 % false positives |
|---|---|---|---|
{findings}

## Planted secrets

| observed | extracted |
|---|---|
{secrets}

## A real run, searched for leaks

Games showed {heard:,} characters; quotations of them in replies, logs or files: {leaks}. Sums unmasked: {unmasked},
recorded in the ledger before: {journaled}.
"""
