"""The verb ``server``: the server of a fleet, and who belongs to the fleet."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .flags import add_folder_verb, add_settings, add_verb, path, settings_of, whole_number

if TYPE_CHECKING:
    from ..protocol.config import RunConfig
    from ..protocol.prompt_pack import PromptPack
    from ..server.operate.folder import ServerFolder

HELP = "run a fleet's server: see docs/deploy.md"
EXAMPLES = ("init /srv/fleet --host fleet.example.org", "start /srv/fleet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs below ``server`` and their flags."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    init = add_folder_verb(
        what,
        "init",
        "make a fleet: authority, certificate and signing key; again, a new certificate",
        "/srv/fleet --host fleet.example.org",
    )
    init.add_argument("--host", action="append", required=True, metavar="NAME", help="name or address of the server")
    init.add_argument(
        "--port", type=whole_number, default=8443, metavar="N", help="that devices reach (default: %(default)s)"
    )
    init.add_argument(
        "--listen", default="127.0.0.1:9092", metavar="HOST:PORT", help="of the SuperLink itself (default: %(default)s)"
    )
    add_settings(init)
    enroll = add_folder_verb(
        what, "enroll", "add a device, and write the bundle to hand back to it", "/srv/fleet kitchen.pub"
    )
    enroll.add_argument("card", type=path, metavar="DEVICE.pub", help="what `fedoel device join` has written")
    enroll.add_argument("--name", metavar="NAME", help="what the fleet calls it (default: what it calls itself)")
    enroll.add_argument("--out", type=path, metavar="FILE", help="the bundle (default: NAME.fleet)")
    revoke = add_folder_verb(what, "revoke", "remove a device for good", "/srv/fleet kitchen")
    revoke.add_argument("name", metavar="NAME", help="what the fleet calls it")
    text = "between two runs: a new key of the fleet, which the old one signs; or a new certificate authority"
    rotate = add_folder_verb(what, "rotate", text, "/srv/fleet --certificates")
    text = "make the next certificate authority, which devices trust beside the present one; also while a run goes on"
    rotate.add_argument("--certificates", action="store_true", help=text)
    text = "with --certificates: the next authority takes the place of the present one"
    rotate.add_argument("--finish", action="store_true", help=text)
    text = "with --finish: also if a device has no bundle with the next authority"
    rotate.add_argument("--anyway", action="store_true", help=text)
    add_folder_verb(what, "start", "run the SuperLink and the fleet's run, or go on with it", "/srv/fleet")
    text = "stop every device of the fleet, by a signed notice, until go-on"
    stop = add_folder_verb(what, "stop", text, '/srv/fleet --reason "version 7 orders too much milk"')
    stop.add_argument("--reason", default="", metavar="TEXT", help="one line for the owners of the devices")
    add_folder_verb(what, "go-on", "lift the stop, by a newer notice", "/srv/fleet")
    add_folder_verb(what, "status", "say how server, devices and run are", "/srv/fleet")
    text = "print or check the log of what the fleet's key has signed"
    log = add_verb(what, "log", text, ["show /srv/fleet", "verify /srv/fleet"]).add_subparsers(
        dest="log", metavar="WHAT", required=True
    )
    add_folder_verb(log, "show", "print its entries and its head", "/srv/fleet")
    text = "check its chain and signatures; exits with 1 and names what was changed"
    verify = add_folder_verb(log, "verify", text, f"/srv/fleet 57:{'9f3a' * 16}")
    verify.add_argument("head", nargs="?", default="", metavar="HEAD", help="that a device shows: the log must have it")


def run(arguments: argparse.Namespace) -> int:
    """Run one of the verbs below ``server`` on the server's folder."""
    from ..server.operate import log, setup, status, stop
    from ..server.operate.folder import ServerFolder

    folder = ServerFolder(arguments.dir.absolute())
    if arguments.what == "start":
        from ..server.operate.start import start  # loads Flower

        return start(folder)
    verbs = {
        "init": lambda: _init(folder, arguments),
        "enroll": lambda: setup.enroll(folder, arguments.card, arguments.name or "", arguments.out),
        "revoke": lambda: setup.revoke(folder, arguments.name),
        "rotate": lambda: _rotate(folder, arguments),
        "stop": lambda: stop.stop(folder, arguments.reason),
        "go-on": lambda: stop.go_on(folder),
        "status": lambda: status.status(folder),
        "log": lambda: log.show(folder) if arguments.log == "show" else log.verify(folder, arguments.head),
    }
    return verbs[arguments.what]()


def _rotate(folder: ServerFolder, arguments: argparse.Namespace) -> int:
    from ..protocol.errors import ConfigError
    from ..server.operate import authority
    from ..server.operate.rotate import rotate

    if arguments.finish > arguments.certificates or arguments.anyway > arguments.finish:
        raise ConfigError("--finish goes with --certificates, and --anyway with --finish")
    if arguments.finish:
        return authority.finish(folder, arguments.anyway)
    return authority.begin(folder) if arguments.certificates else rotate(folder)


def _init(folder: ServerFolder, arguments: argparse.Namespace) -> int:
    from ..server.operate.folder import Settings
    from ..server.operate.setup import init

    given = settings_of(arguments)
    # Relative to the working folder here, and to the server's folder in the file.
    for name in ("policy.base", "server.prompts", "server.red-lines"):
        if given.get(name):
            given[name] = str(path(str(given[name])).absolute())
    return init(folder, Settings(tuple(arguments.host), arguments.port, arguments.listen), given, _make_pack)


def _make_pack(config: RunConfig) -> PromptPack:
    """Make the pack of prompts of a run's families: here, because the server's own code knows no games."""
    from ..protocol.errors import ConfigError, FedoelError
    from ..protocol.host.cache import cache_folder
    from ..protocol.play import specs_from_text

    families = config.families_of_prompts
    try:
        from ..games.make_prompts import make_pack

        return make_pack(
            specs_from_text(families), config.server.pack, 0, cache_folder(config), play=config.server.pack_play
        )
    except (FedoelError, ImportError) as error:
        raise ConfigError(
            f"prompts of {families!r} cannot be made here ({error}): make them where the games are, `fedoel prompts "
            "make`, and give --set server.prompts=FILE; or --set server.public=games for a server that plays games"
        ) from error
