"""The verb ``privacy``: what a private run promises and costs."""

from __future__ import annotations

import argparse

from .flags import whole_number

HELP = "plan what a private run promises and costs, before anything runs"
EXAMPLES = ("plan --epsilon 2 --clients 1000 --cohort 100 --cycles 3",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("what", choices=("plan",), help="print noise, secure sum, bytes and a forecast")
    parser.add_argument("--epsilon", type=float, required=True, metavar="E", help="budget of the whole run")
    parser.add_argument("--delta", type=float, default=1e-6, metavar="D", help="its delta (default: %(default)s)")
    parser.add_argument("--clients", type=whole_number, required=True, metavar="N", help="devices of the fleet")
    parser.add_argument(
        "--cohort", type=whole_number, required=True, metavar="N", help="devices of a cycle, on average"
    )
    parser.add_argument("--cycles", type=whole_number, required=True, metavar="N", help="cycles of the run")
    parser.add_argument("--codec", default="tactics", help="what is sent (default: %(default)s)")
    parser.add_argument("--clipping-norm", type=float, default=2.0, metavar="C", help="default: %(default)s")
    parser.add_argument(
        "--trial-games", type=whole_number, default=2, metavar="N",
        help="of a device in the trial of each cycle; 0 if the server has games (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--max-dropout", type=float, default=0.2, metavar="P", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan of a run."""
    from ..protocol.config import RunConfig
    from ..protocol.errors import ConfigError
    from ..server.operate.forecast import forecast

    if not 0 < arguments.cohort <= arguments.clients:
        raise ConfigError(f"--cohort must be between 1 and --clients, not {arguments.cohort}")
    settings = {
        "clients": arguments.clients, "cycles": arguments.cycles, "codec.name": arguments.codec,
        "codec.clipping-norm": arguments.clipping_norm, "strategy.name": "secure-mean",
        "strategy.fraction-train": arguments.cohort / arguments.clients,
        "privacy.mechanism": "distributed", "privacy.epsilon": arguments.epsilon,
        "privacy.delta": arguments.delta, "privacy.max-dropout": arguments.max_dropout,
    }  # fmt: skip
    if arguments.trial_games:
        settings |= {"trial.games": arguments.trial_games, "trial.share": 1.0, "distil.halvings": 0}
    else:
        settings |= {"server.public": "games"}
    print(*forecast(RunConfig.from_flat(settings)).lines(), sep="\n")
    return 0
