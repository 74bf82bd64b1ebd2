"""The exceptions that fedoel raises; each also inherits from the built-in exception that fits."""


class FedoelError(Exception):
    """Base class of all errors of fedoel; the message says what is wrong and what to do about it."""


class ConfigError(FedoelError, ValueError):
    """An invalid scenario, option or run-config value."""


class RecordError(FedoelError, ValueError):
    """A record whose fields are missing, unknown or of another type; its message names the field."""


class GameError(FedoelError, RuntimeError):
    """A game that cannot be built or played."""


class ModelError(FedoelError, RuntimeError):
    """A base model or adapter that cannot be loaded or used."""


class VectorError(FedoelError, ValueError):
    """An experience vector that is malformed, of the wrong size, not finite, or of another policy version."""


class VersionError(FedoelError, ValueError):
    """A policy version whose manifest, adapter and signature do not match."""


class SecureSumError(FedoelError, RuntimeError):
    """A secure-aggregation phase that cannot or must not be carried out: the round fails closed."""


class PrivacyError(FedoelError, ValueError):
    """An inconsistent privacy plan, or an exhausted privacy budget."""


class StoreError(FedoelError, RuntimeError):
    """A device's store that cannot be read or written."""


class EnrolmentError(FedoelError, ValueError):
    """An enrolment file (card or bundle) that is malformed, was changed, or belongs to another fleet."""


class NotNow(FedoelError, RuntimeError):
    """A request that a device postpones, because a condition set by its owner does not hold now."""


class TrustError(FedoelError, RuntimeError):
    """A request that a device refuses by what its owner allows (`fedoel.protocol.fleet.trust`).

    Parameters
    ----------
    code
        Letters only: this, and not the sentence, is what the server is told.
    sentence
        For the device's owner.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
