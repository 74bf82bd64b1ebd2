"""An experimental control: aggregates are replaced by those of another run, with another seed or other games.

Use it by path: ``--set strategy.name=fedoel.simulations.lent:Lent --set strategy.options=run=../other``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from ..protocol.errors import ConfigError, FedoelError
from ..protocol.experience import Aggregate
from ..server.cycle.collect import numbered
from ..server.cycle.phases import load_phase
from ..server.cycle.server import CycleServer
from ..server.run_folder import stored_config
from ..strategies.mean import Mean


class Lent(Mean):
    """The cohort plays, but each aggregate has the gradient and Fisher diagonal of another run of the same codec.

    Parameters
    ----------
    run
        Folder of the other run; a relative path starts from this run's folder.
    """

    carries_words = False

    def __init__(self, *arguments: Any, run: str = "", **settings: Any) -> None:
        if not run:
            raise ConfigError("strategy.options: name the folder of the run that lends, run=FOLDER")
        super().__init__(*arguments, **settings)
        self.run = run

    def optimise(self, aggregate: Aggregate, cycle: int, exchange: int) -> Aggregate:
        """Replace the cohort's gradient and Fisher diagonal by the other run's.

        Raises
        ------
        ConfigError
            If the other run has no aggregate of this exchange, or another codec.
        """
        spec, run = aggregate.vector.spec, cast(CycleServer, self.server).run.folder / self.run
        if (codec := stored_config(run).codec.name) != spec.codec:
            raise ConfigError(
                f"strategy.options run={self.run}: its vectors are of codec {codec!r}, not {spec.codec!r}"
            )
        try:
            lent = load_phase(run, cycle, numbered("collect", exchange)).arrays["vector"]
        except (FedoelError, KeyError) as error:
            raise ConfigError(f"strategy.options run={self.run}: cycle {cycle} brought nothing to lend") from error
        gradient, fisher, _ = np.split(lent, [spec.dimension, 2 * spec.dimension])
        return replace(aggregate, vector=replace(aggregate.vector, gradient=gradient, fisher=fisher))
