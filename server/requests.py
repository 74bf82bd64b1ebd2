"""The last step of every request: its serial number, privacy plan, run configuration, and the owner's signature."""

from __future__ import annotations

from dataclasses import replace

from ..protocol.fleet.membership import keys_folder
from ..protocol.messages import PlayRequest
from ..protocol.signing import sign_request
from .fleet import next_serial, owner_key
from .safeguards import RunSafeguards


def signed(request: PlayRequest, safeguards: RunSafeguards) -> PlayRequest:
    """Return a request as devices accept it. Where they add all of their noise themselves, the plan goes with it."""
    config = safeguards.config
    keys, local = keys_folder(config), config.privacy.mechanism == "local"
    plan = safeguards.plan(request.spec).to_json() if local else ""
    request = replace(request, serial=next_serial(keys), plan=plan, config=config.digest)
    return sign_request(owner_key(keys), request)
