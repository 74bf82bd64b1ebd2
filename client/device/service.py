"""A systemd unit that runs the device as another user, within limits, and restarts it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from shlex import quote

from ...protocol.errors import ConfigError
from .folder import DeviceFolder, joined
from .settings import DeviceSettings, read_settings

# Flower counts a node as alive for 60 s after its last heartbeat, and until then refuses another with the same key.
RESTART_SECONDS = 75
MEMORY = {False: 600, True: 1200}  # megabytes of all processes, without a language model and with one
UNIT = """\
[Unit]
Description=fedoel device {name}
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
ExecStart={command} device start {folder}
Restart=always
RestartSec={restart}
KillMode=mixed
TimeoutStopSec=20
MemoryMax={memory}M
MemorySwapMax={memory}M
CPUQuota={cpu}%
Nice=10
IOSchedulingClass=idle
TasksMax=256
NoNewPrivileges=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectSystem=strict
ProtectHome={home}
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
CapabilityBoundingSet=
UMask=0077
ReadWritePaths={folder}

[Install]
WantedBy=multi-user.target
"""


def service(folder: DeviceFolder, user: str, path: Path | None = None) -> int:
    """Print the unit that runs a device as `user`, or write it to a path."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*|[1-9][0-9]*", user):
        raise ConfigError(f"--user must be the name of a user or a number above 0, not {user!r}")
    if path is not None and (path.suffix != ".service" or path.is_dir()):
        raise ConfigError(f"--write must name a file that ends in .service, not {path}")
    bundle = joined(folder)
    text = unit(folder, bundle.name, user, read_settings(folder.settings), bool(bundle.model))
    if path is None:
        print(text, end="")
        return 0
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; try it with sudo") from error
    print(f"wrote {path}; now, as root:")
    owner, home = quote(user), quote(str(folder.path))
    print(f"  id {owner} || useradd --system --home-dir {home} {owner}")
    print(f"  chown -R {owner} {home}")
    print(f"  systemctl daemon-reload && systemctl enable --now {quote(path.stem)}")
    return 0


def unit(folder: DeviceFolder, name: str, user: str, settings: DeviceSettings, model: bool) -> str:
    """Return a systemd unit for a device.

    Parameters
    ----------
    name
        The device's name.
    user
        Who runs it.
    settings
        The owner's: limits, and where the base model is.
    model
        Whether it plays with a language model.

    Raises
    ------
    ConfigError
        If the folder's path has characters that systemd interprets.
    """
    limits, program = settings.limits, Path(sys.executable).parent / "fedoel"
    for needed in (folder.path, program):
        if re.search(r"[\s%$\\\"']", str(needed)):
            raise ConfigError(f"systemd needs a path without spaces, quotes, percent and dollar signs, not {needed}")
    read = (folder.path, program, Path(settings.model.file))
    in_home = any(path.is_relative_to(parent) for path in read for parent in ("/home", "/root"))
    return UNIT.format(
        name=name, user=user, command=program, folder=folder.path,
        restart=RESTART_SECONDS, memory=MEMORY[model] if not limits.memory else 500 + limits.memory,
        cpu=100 * limits.threads, home="no" if in_home else "yes",
    )  # fmt: skip
