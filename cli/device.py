"""The verb ``device``: a device of a fleet, from joining to leaving."""

from __future__ import annotations

import argparse

from .flags import add_folder_verb, path, whole_number

HELP = "put this machine into a fleet: see docs/deploy.md"
EXAMPLES = ("join device --name kitchen", "start device")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs below ``device`` and their flags."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    join = add_folder_verb(
        what, "join", "make this device's keys, then take in the bundle of the fleet", "device --name kitchen"
    )
    join.add_argument("--name", metavar="NAME", help="what this device calls itself: makes its keys and NAME.pub")
    join.add_argument("--bundle", type=path, metavar="FILE", help="what `fedoel server enroll` has written")
    join.add_argument("--server", metavar="HOST:PORT", help="refuse a bundle that names another server")
    join.add_argument(
        "--ca", type=path, metavar="FILE", help="refuse a bundle of another authority than this certificate's"
    )
    join.add_argument("--hours", default="", metavar="FROM-TO", help='when it plays, e.g. "22:00-07:00"')
    add_folder_verb(what, "doctor", "look at everything that has to hold; exits with 1 if something does not", "device")
    add_folder_verb(what, "start", "take part in the fleet until stopped", "device")
    service = add_folder_verb(
        what, "service", "print a systemd unit, or write it", "device --write /etc/systemd/system/fedoel-device.service"
    )
    service.add_argument("--user", default="fedoel", metavar="USER", help="whom it runs as (default: %(default)s)")
    service.add_argument("--write", type=path, metavar="FILE", help="e.g. /etc/systemd/system/fedoel-device.service")
    add_folder_verb(what, "status", "say what it is, plays and keeps", "device")
    logs = add_folder_verb(what, "logs", "print the end of its log", "device --lines 100")
    logs.add_argument("--lines", type=whole_number, default=50, metavar="N", help="default: %(default)s")
    wipe = add_folder_verb(what, "wipe", "delete keys, store and versions for good", "device --store")
    wipe.add_argument("--store", action="store_true", help="only what it played, and stay in the fleet")
    wipe.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Run one of the verbs below ``device`` on the device's folder."""
    from ..client.device import doctor, join, service, start, status
    from ..client.device.folder import DeviceFolder

    folder = DeviceFolder(arguments.dir.resolve())
    verbs = {
        "join": lambda: join.join(
            folder, arguments.name, bundle=arguments.bundle, server=arguments.server, ca=arguments.ca,
            hours=arguments.hours,
        ),
        "doctor": lambda: doctor.doctor(folder),
        "start": lambda: start.start(folder),
        "service": lambda: service.service(folder, arguments.user, arguments.write),
        "status": lambda: status.status(folder),
        "logs": lambda: status.logs(folder, arguments.lines),
        "wipe": lambda: status.wipe(folder, store_only=arguments.store, sure=arguments.yes),
    }  # fmt: skip
    return verbs[arguments.what]()
