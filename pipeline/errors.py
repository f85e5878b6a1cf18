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


class ClientError(EmoStreamError):
    """A client could not reach the registry or a subscriber, or what it asked of them was refused.

    `status` is the HTTP status, None where there was no answer; `detail` the server's own words; `retry_after_s` how
    long it asked to be left in peace, seconds.
    """

    def __init__(
        self, message: str, *, status: int | None = None, detail: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s
