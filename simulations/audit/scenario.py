"""Attack the protections of a scenario, and collect the results on a privacy card."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ...codecs.codec import load_codec
from ...games.cache import cache_folder
from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.records.json_codec import to_json
from ...server.app import check
from ...server.game_plan import GamePlan
from ...server.safeguards import RunSafeguards
from .attacks import attribute, membership
from .card import Card
from .leaks import watch
from .mechanism import PlannedMechanism, audit_mechanism, audited
from .planted import extractions
from .pool import play_pool

CONFIDENCE, CELLS, SPARE = 0.999, 2048, 40


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
        If the scenario promises nothing that could be audited.
    """
    if config.privacy.mechanism != "distributed":
        raise ConfigError("there is nothing to audit: the scenario has no privacy.mechanism; try 'private'")
    cache = cache_folder(config)
    check(config, cache)
    safeguards, encoder = RunSafeguards(config), load_codec(config.codec.name).encoder
    plan, delta = safeguards.plan(GamePlan.of(config).vector_spec(config, encoder, "audit")), config.privacy.delta
    canaries = audited(plan, CELLS)
    bounds = audit_mechanism(canaries, PlannedMechanism(canaries), delta, CONFIDENCE, config.seed)
    pool = play_pool(config, plan.minimum + SPARE, cache)
    findings = [
        *membership(pool, plan, safeguards.chance, trials, config.seed),
        *membership(pool, plan, 1.0, trials, config.seed),
        *attribute(pool, plan, trials, config.seed),
    ]
    with tempfile.TemporaryDirectory(prefix="fedoel-audit-") as folder:
        surveillance = watch(config, Path(folder) / "run")
    secrets = extractions(plan, config.seed)
    if with_updates:
        from .updates import lora_extraction

        secrets.insert(2, lora_extraction(config.policy, cache, config.seed))
    return Card(to_json(safeguards.describe(secure=True)), bounds, findings, secrets, surveillance)
