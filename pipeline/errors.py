"""The errors people see: each names the culprit, the value seen and the remedy."""

from __future__ import annotations


class EmoStreamError(Exception):
    """Base of every error EmoStream raises on purpose; a command prints it without a traceback."""


class SettingError(EmoStreamError):
    """A setting or option has a name or value that cannot be used."""


class JavaError(EmoStreamError):
    """Java is missing, too old, or could not run what it was given."""


class JarsError(EmoStreamError):
    """The pinned jars could not be resolved or are damaged."""


class KafkaUnreachableError(EmoStreamError):
    """No broker answered at the configured address in the time given."""


class BrokerError(EmoStreamError):
    """The embedded Kafka could not be started, or stopped by itself."""


class MessageError(EmoStreamError):
    """A record or request body is not the message its place asks for."""


class PortInUseError(EmoStreamError):
    """Something else already listens on the address a stage was told to use."""


class BufferFullError(EmoStreamError):
    """The bounded buffer has no room; nothing of the request was accepted."""


class RegistryFullError(EmoStreamError):
    """As many clients are registered as may be."""
