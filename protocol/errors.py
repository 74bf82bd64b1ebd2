"""The exceptions that fedoel raises on purpose: each also inherits the built-in that fits."""


class FedoelError(Exception):
    """Base of every error raised on purpose; its message says what was wrong and what to do."""


class ConfigError(FedoelError, ValueError):
    """A scenario, option or run-config value that cannot be used."""


class RecordError(FedoelError, ValueError):
    """A record whose fields are missing, unknown or of another type; its message names the field."""


class GameError(FedoelError, RuntimeError):
    """A game that cannot be built or played."""


class ModelError(FedoelError, RuntimeError):
    """A base model or adapter that cannot be loaded or used."""


class VectorError(FedoelError, ValueError):
    """An experience vector that is malformed, mis-sized, non-finite or out of date."""


class VersionError(FedoelError, ValueError):
    """A policy version whose manifest, adapter or signature does not hold together."""


class SecureSumError(FedoelError, RuntimeError):
    """A step of the secure sum that cannot or must not be taken: the round fails closed."""


class PrivacyError(FedoelError, ValueError):
    """A privacy plan that does not hold together, or a budget that does not suffice."""


class StoreError(FedoelError, RuntimeError):
    """A device's store that cannot be read or written."""


class EnrolmentError(FedoelError, ValueError):
    """A file with which a device joins a fleet that is something else, was changed, or does not fit."""


class NotNow(FedoelError, RuntimeError):
    """A request that a device would serve at another time: what its owner asks for does not hold at the moment."""
