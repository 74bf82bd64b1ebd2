"""The command ``fedoel``: arguments in, exit code out."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from io import TextIOWrapper
from types import MappingProxyType
from typing import Protocol

from ..protocol.errors import FedoelError
from ..protocol.host.processes import as_interrupts
from ..protocol.plugins import search_folder
from ..protocol.settings import is_plain, shown
from . import (
    approve,
    audit,
    check_plugin,
    completion,
    dash,
    device,
    diff,
    evaluate,
    experiment,
    export,
    migrate,
    new,
    play,
    plugins,
    privacy,
    promote,
    prompts,
    prune,
    report,
    rollback,
    server,
    settings,
    show,
    simulate,
    verify,
    versions,
)
from .flags import add_verb
from .output import dropping_lost_output, quiet_libraries

REFUSED, INTERRUPTED, UNREAD = 2, 130, 141
OUTPUT_PROBLEMS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# Of any path that is typed, or of a file of a folder that is, whichever verb looks there first.
PATH_PROBLEMS = (
    errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM,
)  # fmt: skip
NO_PROCESSES = "this user may not start any more processes or threads: end some, or raise `ulimit -u`"
GO_ON = ("simulate", "experiment", "audit", "server", "device")  # what they do is worth more than what they print
ENVIRONMENT = (
    # Waiting threads of torch must sleep, or they take the cores of everybody else, but not between two operations:
    # some microseconds of spinning first make play a fifth faster.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    ("GOMP_SPINCOUNT", "10000"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("HF_HUB_OFFLINE", "1"),  # nothing is downloaded at run time
)


class Verb(Protocol):
    """A module of this package that defines one verb."""

    HELP: str
    """What the verb does, in one sentence without a full stop."""

    @property
    def EXAMPLES(self) -> Sequence[str]:
        """Words that can follow the verb, each of which its help shows as a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flags of the verb."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the verb and return its exit code."""


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "simulate": simulate, "evaluate": evaluate, "export": export, "report": report, "dash": dash,
        "experiment": experiment, "play": play, "audit": audit, "privacy": privacy, "prompts": prompts,
        "server": server, "device": device, "versions": versions, "show": show, "diff": diff, "rollback": rollback,
        "promote": promote, "approve": approve, "prune": prune, "verify": verify, "migrate": migrate,
        "check-plugin": check_plugin, "plugins": plugins, "new": new, "settings": settings, "completion": completion,
    }
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        The exit code of the verb, 2 if fedoel refused with a reason, 130 after Ctrl-C, 141 if nobody reads the output.
    """
    use_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    if foreign := [word for word in words if not is_plain(word)]:
        print(f"fedoel: {shown(foreign[0])} is not in UTF-8: give the file or folder another name", file=sys.stderr)
        return REFUSED
    arguments = make_parser().parse_args(words)
    arguments.words = words
    set_environment()
    import_from_working_folder()
    with dropping_lost_output() if arguments.verb in GO_ON else nullcontext():
        return run_verb(arguments)


def run_verb(arguments: argparse.Namespace) -> int:
    """Run a verb, and say in one sentence why it cannot go on; returns what `main` returns."""
    try:
        with quiet_libraries(arguments), as_interrupts() if arguments.verb in GO_ON else nullcontext():
            code = VERBS[arguments.verb].run(arguments)
            sys.stdout.flush()
            return code
    except FedoelError as error:
        print(f"fedoel: {error}", file=sys.stderr)
        return REFUSED
    except MemoryError as error:
        print(
            f"fedoel: there is not enough memory ({error or 'MemoryError'}): take fewer clients or games, or smaller "
            "batches",
            file=sys.stderr,
        )
        return REFUSED
    except RuntimeError as error:
        if str(error) != "can't start new thread":
            raise
        print(f"fedoel: {NO_PROCESSES}", file=sys.stderr)
        return REFUSED
    except ModuleNotFoundError as error:
        print(f"fedoel: {_missing(arguments.verb, error)}", file=sys.stderr)
        return REFUSED
    except SystemExit as end:  # of no verb: arguments are parsed before
        print(
            f"fedoel: something that was called ended the program (SystemExit: {end.code}), such as a plug-in that "
            "calls `sys.exit`: let it raise an error; what a run has finished is kept, and --resume goes on",
            file=sys.stderr,
        )
        return REFUSED
    except KeyboardInterrupt as interrupt:
        print(_interrupted(arguments.verb, interrupt), file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.filename is not None and error.errno in PATH_PROBLEMS:
            print(f"fedoel: {shown(error.filename)}: {error.strerror}; choose another path", file=sys.stderr)
            return REFUSED
        if error.errno == errno.EAGAIN:  # fork(2)
            print(f"fedoel: {NO_PROCESSES}", file=sys.stderr)
            return REFUSED
        if error.errno == errno.ENOENT and error.filename is None:  # getcwd(3)
            print("fedoel: the working folder has been removed: go to another one", file=sys.stderr)
            return REFUSED
        if error.filename is not None or error.errno not in OUTPUT_PROBLEMS:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its exit
        if error.errno == errno.EPIPE:  # as in `fedoel plugins | head`: nobody reads on
            return UNREAD
        print(f"fedoel: the output cannot be written: {error.strerror}; make room where it goes", file=sys.stderr)
        return REFUSED


def use_streams() -> None:
    """Redirect closed streams to the null device; print `?` for characters that an encoding lacks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors="replace")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs, which what it parses names as `root`."""
    root = argparse.ArgumentParser(prog="fedoel", description="Federated online experiential learning.")
    root.set_defaults(root=root)
    root.add_argument("--version", action=PrintVersion, help="print the installed version, and exit")
    verbs = root.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        verb.add_arguments(add_verb(verbs, name, verb.HELP, verb.EXAMPLES))
    return root


class PrintVersion(argparse.Action):
    """Prints the installed version; reads it only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:
        """Print it, and exit."""
        from ..protocol.host.machine import installed_version

        number = installed_version("fedoel")
        print(f"fedoel {number}" if number else "fedoel, not installed as a package")
        parser.exit()


def set_environment() -> None:
    """Set what libraries read when they are first imported, unless the user has."""
    for name, value in ENVIRONMENT:
        os.environ.setdefault(name, value)
    os.environ["MPLBACKEND"] = "agg"  # figures are files; the backend that a notebook hands down may be missing
    os.environ.pop("SOURCE_DATE_EPOCH", None)  # of figures, which have no date: one that is no number fails them


def import_from_working_folder() -> None:
    """Let plug-ins be found in the working folder, also by processes started from here."""
    with suppress(OSError):  # it was removed
        search_folder(os.getcwd())


def _missing(verb: str, error: ModuleNotFoundError) -> str:
    """Say which part of an installation a verb lacks: a device's has no `fedoel.simulations`, for example."""
    package = ".".join((error.name or "").split(".")[:2])
    if package.startswith("fedoel."):
        return f"`fedoel {verb}` needs {package}, which is not part of this installation: install all of fedoel"
    extra = verb if verb in ("dash", "completion") else "simulation"
    return f"`fedoel {verb}` needs the module {error.name!r}, which is not installed: pip install 'fedoel[{extra}]'"


def _interrupted(verb: str, interrupt: KeyboardInterrupt) -> str:
    if verb in ("experiment", "server"):
        return "interrupted; the same command goes on"
    return "; ".join(["interrupted", *map(str, interrupt.args)])
