"""The verb ``audit``: attacks on a scenario or on a fleet's run, and its privacy card."""

from __future__ import annotations

import argparse

from ..protocol.host.cache import expanded
from .flags import add_settings, add_verbose, settings_of, whole_number

HELP = "attack the protections of a scenario or a fleet and write a privacy card; exits with 1 if a promise is broken"
EXAMPLES = ("", "my.toml --trials 500", "/var/lib/fedoel-server")
BROKEN = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "scenario", nargs="?", metavar="SCENARIO",
        help="TOML file, built-in name (default: private), or a server's folder, which is only read",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=whole_number, default=2000, metavar="N", help="of each attack (default: %(default)s)"
    )
    parser.add_argument("--with-updates", action="store_true", help="attack LoRA updates too, with the language model")
    parser.add_argument("--out", metavar="DIR", help="folder of the card (default: runs/audit)")
    add_settings(parser)
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Audit a scenario or a fleet's run, print its card, and write it."""
    from ..simulations.audit.card import audit
    from ..simulations.audit.fleet import as_fleet, config_of_fleet
    from ..simulations.scenario import BUILT_IN, load_scenario

    scenario, settings = arguments.scenario or "private", settings_of(arguments)
    if scenario not in BUILT_IN and expanded(scenario).is_dir():
        config = config_of_fleet(expanded(scenario), settings)
    else:
        config = as_fleet(load_scenario(scenario, settings))
    card = audit(config, arguments.trials, arguments.with_updates)
    print(card.markdown())
    for path in card.write(expanded(arguments.out or "runs/audit").absolute()):
        print(path)
    return BROKEN if card.problems else 0
