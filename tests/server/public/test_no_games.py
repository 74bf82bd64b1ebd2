"""A server that has prompts only gets along without games: it works where they cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from fedoel.protocol.config import RunConfig

# Part of every program below: from here on, importing games fails, also inside of functions.
FORBIDDEN = dedent("""
    import sys

    class Forbidden:
        def find_spec(self, name, path=None, target=None):
            if f"{name}.".startswith("fedoel.games."):
                raise ImportError(f"{name} is imported on a server that has prompts only")

    sys.meta_path.insert(0, Forbidden())
""")
PREPARE = FORBIDDEN + dedent("""
    import json
    from pathlib import Path
    from fedoel.protocol.config import RunConfig
    from fedoel.server.app import prepare

    config = RunConfig.from_flat(json.loads(sys.argv[1]))
    strategy, server = prepare(config, Path(config.out))
""")
CYCLE = PREPARE + dedent('''
    import numpy as np
    from fedoel.protocol.experience import Aggregate, ExperienceVector
    from fedoel.protocol.trials import TrialTerms
    from fedoel.server.fleet import make_fleet
    from fedoel.strategies.server_side import Traffic

    asked = []

    def gain(request, part):
        """Answer as a fleet that wins what is tried, and nothing with the current version: 8 games of each family."""
        asked.append("candidate" if request.candidate else "context")
        sums = np.array([8.0, 8.0, 8.0, 0.0, 8.0]) / TrialTerms.of(request.spec).units
        sums = np.append(np.tile(sums, len(request.spec.families)), 0.0)
        return Aggregate(ExperienceVector.from_parts(request.spec, {"gradient": sums}), config.clients)

    make_fleet(Path(config.out) / "keys", config.clients)
    with server.run.log:
        server.start()
        request = server.request(1, 1)
        rng = np.random.default_rng(0)
        parts = {"gradient": rng.normal(size=request.spec.dimension), "fisher": np.ones(request.spec.dimension)}
        experience = Aggregate(ExperienceVector.from_parts(request.spec, parts), config.clients)
        server.collect(1, 1, experience, Traffic(1.0, 1.0, config.clients, {}))
        server.consolidate(1, gain)
    last = server.state.record
    print(json.dumps({"decision": last.decision, "asked": asked, "baseline": request.baseline is None}))
''')


def run(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_guard_of_these_tests_guards() -> None:
    for name in ("fedoel.games", "fedoel.games.player", "fedoel.server.public.world_of_games"):
        with pytest.raises(AssertionError, match="has prompts only"):
            run(f"{FORBIDDEN}\nimport {name}")


@pytest.mark.parametrize("module", ["fedoel.server.app", "fedoel.server.operate.run_app", "fedoel.strategies.registry"])
def test_a_server_starts_where_games_cannot_be_imported(module: str) -> None:
    run(f"{FORBIDDEN}\nimport {module}")


def test_a_run_with_prompts_is_prepared_where_games_cannot_be_imported(config: RunConfig) -> None:
    run(PREPARE, json.dumps(config.to_flat()))
    assert not Path(config.out).exists()


def test_a_cycle_with_prompts_runs_where_games_cannot_be_imported(config: RunConfig) -> None:
    """Warm start, request, context, trials, distillation and promotion, with answers that a fleet might have sent."""
    last = json.loads(run(CYCLE, json.dumps(config.to_flat())))
    assert last == {"decision": "promoted", "asked": ["context", "candidate"], "baseline": True}
