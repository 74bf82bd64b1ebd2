"""The last step of every request: serial number, privacy plan, run configuration, signature, and the fleet's log."""

from __future__ import annotations

from dataclasses import replace

from ..protocol.fleet.log import REQUEST
from ..protocol.fleet.membership import RunMode, keys_folder
from ..protocol.messages import PlayRequest
from ..protocol.signing import entry_of_request, sign_request
from .fleet import next_serial, owner_key
from .safeguards import RunSafeguards


def signed(request: PlayRequest, safeguards: RunSafeguards) -> PlayRequest:
    """Return a request as devices accept it. Where they add all of their noise themselves, the plan goes with it."""
    config = safeguards.config
    keys, local = keys_folder(config), config.privacy.mechanism == "local"
    plan = safeguards.plan(request.spec).to_json() if local else ""
    request = replace(request, serial=next_serial(keys), plan=plan, config=config.digest)
    key = owner_key(keys)
    if RunMode.of(config) is RunMode.DEPLOYMENT:  # before it can be sent
        safeguards.fleet_log.add(key, REQUEST, **entry_of_request(request))
    return sign_request(key, request)
