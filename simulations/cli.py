"""The command ``fedoel``: arguments in, exit code out.

The modules that do the work are imported when their verb is run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from ..protocol.errors import FedoelError

SCALES = ("quick", "standard", "full", "private")
ENGINES = ("inprocess", "ray")
EXPORTS = ("peft", "gguf-lora", "gguf-merged")
KINDS = ("f32", "f16", "bf16", "q8_0")
REFUSED, INTERRUPTED = 2, 130
ENVIRONMENT = (
    # Waiting threads of torch must sleep, or they take the cores of everybody else, but not between two operations:
    # some microseconds of spinning first make play a fifth faster.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    ("GOMP_SPINCOUNT", "10000"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("HF_HUB_OFFLINE", "1"),  # nothing is downloaded at run time
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 if all went well, 2 if fedoel refused with a reason, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(words)
    set_environment()
    look_here()
    try:
        verb: Callable[[argparse.Namespace], int] = import_module(arguments.module, __package__).run_verb
        return verb(arguments)
    except FedoelError as error:
        print(f"fedoel: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print(_interrupted(arguments.verb, words), file=sys.stderr)
        return INTERRUPTED


def set_environment() -> None:
    """Set what libraries read when they are first imported, unless the user has."""
    for name, value in ENVIRONMENT:
        os.environ.setdefault(name, value)


def look_here() -> None:
    """Find modules of plug-ins in the working folder, after all others; processes that are started do so too."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), here]))


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs; each verb names the module whose `run_verb` does it."""
    root = argparse.ArgumentParser(prog="fedoel", description="Federated online experiential learning.")
    verbs = root.add_subparsers(dest="verb", metavar="VERB", required=True)
    _simulate(verbs.add_parser("simulate", help="run a federation on this machine, and report on it"))
    _evaluate(verbs.add_parser("evaluate", help="measure an adapter on held-out games"))
    _export(verbs.add_parser("export", help="write a version as other tools load it"))
    _report(verbs.add_parser("report", help="write the report of a run again"))
    _experiment(verbs.add_parser("experiment", help="compare arms of a scenario over seeds"))
    _play(verbs.add_parser("play", help="watch a policy play one game"))
    _audit(verbs.add_parser("audit", help="attack a scenario's protections, and write a privacy card"))
    _privacy(verbs.add_parser("privacy", help="plan what a private run promises and costs"))
    _server(verbs.add_parser("server", help="run a fleet's server"))
    _device(verbs.add_parser("device", help="put this machine into a fleet"))
    _check_plugin(verbs.add_parser("check-plugin", help="check that a plug-in does what one must do"))
    verbs.add_parser("plugins", help="list what can be plugged in, from where, and its options").set_defaults(
        module=".plugins"
    )
    _new(verbs.add_parser("new", help="write a plug-in to start from, with its tests"))
    return root


def _simulate(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".simulate")
    verb.description = "Run a federation on this machine, and report on it."
    _add_scenario(verb.add_mutually_exclusive_group())
    verb.add_argument("--engine", choices=ENGINES, default="inprocess", help="where clients run (default: %(default)s)")
    verb.add_argument("--clients", type=int, metavar="N", help="number of clients")
    verb.add_argument("--cycles", type=int, metavar="N", help="number of cycles after the warm start")
    verb.add_argument("--seed", type=int, metavar="N", help="picks games, mixes and draws")
    verb.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/NAME-SEED)")
    verb.add_argument("--resume", action="store_true", help="continue the run in that folder")
    _add_settings(verb)


def _evaluate(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".evaluate")
    verb.description = "Measure an adapter on held-out games."
    verb.add_argument("adapter", metavar="ADAPTER", help="folder of the adapter")
    verb.add_argument("--scenario", default="", help="file or built-in name (default: its run, or quick)")
    verb.add_argument("--games", type=int, metavar="N", help="number of held-out games (default: the scenario's)")
    verb.add_argument("--personal", action="store_true", help="what each device gains by a context of its own")
    _add_settings(verb)


def _export(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".export")
    verb.description = "Write a version as other tools load it, with a model card. Its manifest must verify."
    verb.add_argument("version", metavar="VERSION", help="folder of the version, RUN/versions/VERSION")
    verb.add_argument("--to", choices=EXPORTS, required=True, help="for peft, or for llama.cpp")
    verb.add_argument("--quantise", choices=KINDS, default="", help="kind of numbers (default: f32 for peft, else f16)")
    verb.add_argument("--base", default="", metavar="PATH", help="the base model (default: its run's)")
    verb.add_argument("--out", metavar="DIR", help="an empty folder (default: VERSION-FORMAT)")


def _report(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".report")
    verb.description = "Write report.html and the figures of a run again."
    verb.add_argument("run", metavar="RUN", help="folder of the run")


def _experiment(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".experiment")
    verb.description = "Run the arms of an experiment that are missing, then write its table and figure."
    verb.add_argument("experiment", metavar="NAME", help="knowledge, federation, loop, privacy, ... or a TOML file")
    verb.add_argument("--seeds", default="", metavar="N,N", help="instead of those of the experiment")
    verb.add_argument("--arms", default="", metavar="ARM,ARM", help="only these")
    verb.add_argument("--out", metavar="DIR", help="folder of the results (default: runs/experiment-NAME)")
    _add_settings(verb)


def _play(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".play")
    verb.description = "Watch a policy play one game, turn by turn. Nothing is stored."
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--run", metavar="RUN", help="folder of a run: its last version plays")
    which.add_argument("--adapter", metavar="DIR", help="folder of an adapter")
    which.add_argument("--device", metavar="DIR", help="folder of a device: its last good version plays, offline")
    verb.add_argument("--personal", action="store_true", help="with what that device has learned for itself alone")
    verb.add_argument("--game", metavar="GAME", help="e.g. 'coin-collector level=102 turns=7'")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="picks the game's instance and the draws")


def _audit(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".audit.verb")
    verb.description = "Attack a scenario's protections, and write a privacy card. Exits with 1 if a promise is broken."
    verb.add_argument("scenario", nargs="?", metavar="SCENARIO", help="TOML file or built-in name (default: private)")
    verb.add_argument("--trials", type=int, default=2000, metavar="N", help="of each attack (default: %(default)s)")
    verb.add_argument("--with-updates", action="store_true", help="attack LoRA updates too, with the language model")
    verb.add_argument("--out", metavar="DIR", help="folder of the card (default: runs/audit)")
    _add_settings(verb)


def _privacy(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".privacy")
    verb.description = "Plan what a private run promises and costs, before anything runs."
    verb.add_argument("what", choices=("plan",), help="print noise, secure sum, bytes and a forecast")
    verb.add_argument("--epsilon", type=float, required=True, metavar="E", help="budget of the whole run")
    verb.add_argument("--delta", type=float, default=1e-6, metavar="D", help="its delta (default: %(default)s)")
    verb.add_argument("--clients", type=int, required=True, metavar="N", help="devices of the fleet")
    verb.add_argument("--cohort", type=int, required=True, metavar="N", help="devices of a cycle, on average")
    verb.add_argument("--cycles", type=int, required=True, metavar="N", help="cycles of the run")
    verb.add_argument("--codec", default="tactics", help="what is sent (default: %(default)s)")
    verb.add_argument("--clipping-norm", type=float, default=2.0, metavar="C", help="default: %(default)s")
    verb.add_argument("--max-dropout", type=float, default=0.2, metavar="P", help="default: %(default)s")


def _check_plugin(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".conformance.verb")
    verb.description = "Find out which kind of plug-in something is, and check it. Exits with 1 if a check fails."
    verb.add_argument("plugin", metavar="PLUGIN", help="module:Name, or the name of an installed one")


def _new(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module=".skeletons.verb")
    verb.description = "Write a package with a plug-in that works, registered by entry point and tested."
    verb.add_argument("kind", choices=("strategy", "codec", "game"), help="what to write")
    verb.add_argument("name", metavar="NAME", help="of the package and its folder: letters, digits, - and _")


def _server(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module="..server.operate.verb")
    verb.description = "Run a fleet's server: see docs/deploy.md."
    what = verb.add_subparsers(dest="what", metavar="WHAT", required=True)
    init = _with_folder(what, "init", "make a fleet: authority, certificate and signing key; again, a new certificate")
    init.add_argument("--host", action="append", required=True, metavar="NAME", help="name or address of the server")
    init.add_argument("--port", type=int, default=8443, metavar="N", help="that devices reach (default: %(default)s)")
    init.add_argument(
        "--listen", default="127.0.0.1:9092", metavar="HOST:PORT", help="of the SuperLink itself (default: %(default)s)"
    )
    enroll = _with_folder(what, "enroll", "add a device, and write the bundle to hand back to it")
    enroll.add_argument("card", metavar="DEVICE.pub", help="what `fedoel device join` has written")
    enroll.add_argument("--name", metavar="NAME", help="what the fleet calls it (default: what it calls itself)")
    enroll.add_argument("--out", metavar="FILE", help="the bundle (default: NAME.fleet)")
    revoke = _with_folder(what, "revoke", "remove a device for good")
    revoke.add_argument("name", metavar="NAME", help="what the fleet calls it")
    _with_folder(what, "start", "run the SuperLink and the fleet's run, or go on with it")
    _with_folder(what, "status", "say how server, devices and run are")


def _device(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(module="..client.device.verb")
    verb.description = "Put this machine into a fleet: see docs/deploy.md."
    what = verb.add_subparsers(dest="what", metavar="WHAT", required=True)
    join = _with_folder(what, "join", "make this device's keys, then take in the bundle of the fleet")
    join.add_argument("--name", metavar="NAME", help="what this device calls itself: makes its keys and NAME.pub")
    join.add_argument("--bundle", metavar="FILE", help="what `fedoel server enroll` has written")
    join.add_argument("--server", metavar="HOST:PORT", help="refuse a bundle that names another server")
    join.add_argument("--ca", metavar="FILE", help="refuse a bundle of another authority than this certificate's")
    join.add_argument("--hours", default="", metavar="FROM-TO", help='when it plays, e.g. "22:00-07:00"')
    _with_folder(what, "doctor", "look at everything that has to hold; exits with 1 if something does not")
    _with_folder(what, "start", "take part in the fleet until stopped")
    service = _with_folder(what, "service", "print a systemd unit, or write it")
    service.add_argument("--user", default="fedoel", metavar="USER", help="whom it runs as (default: %(default)s)")
    service.add_argument("--write", metavar="FILE", help="e.g. /etc/systemd/system/fedoel-device.service")
    _with_folder(what, "status", "say what it is, plays and keeps")
    logs = _with_folder(what, "logs", "print the end of its log")
    logs.add_argument("--lines", type=int, default=50, metavar="N", help="default: %(default)s")
    wipe = _with_folder(what, "wipe", "delete keys, store and versions for good")
    wipe.add_argument("--store", action="store_true", help="only what it played, and stay in the fleet")
    wipe.add_argument("--yes", action="store_true", help="do not ask")


def _with_folder(
    what: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    verb = what.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    verb.add_argument("dir", metavar="DIR", help="its folder")
    return verb


def _add_scenario(group: argparse._MutuallyExclusiveGroup) -> None:
    group.add_argument("scenario", nargs="?", metavar="SCENARIO", help="TOML file or built-in name (default: quick)")
    group.add_argument("--scale", choices=SCALES, help="built-in scenario by size")


def _add_settings(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="e.g. games.per-client=4"
    )


def _interrupted(verb: str, words: Sequence[str]) -> str:
    if verb in ("experiment", "server"):
        return "interrupted; the same command goes on"
    if verb != "simulate":
        return "interrupted"
    return f"interrupted; continue with: {shlex.join(['fedoel', *(w for w in words if w != '--resume'), '--resume'])}"
