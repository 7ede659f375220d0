"""What a reload may change, and what needs a restart."""

from twisted.logger import Logger

from tftpd.config.settings import Settings

_FIXED = ("workers", "log", "status")  # what the daemon is built of, rather than what it serves


def take_over(old: Settings, new: Settings, log: Logger) -> Settings:
    """`new`, but for the keys that need a restart; those that differ are named in the log."""
    differ = [key for key in _FIXED if getattr(old, key) != getattr(new, key)]
    for key in differ:
        log.warn("{key} has changed, which needs a restart", key=key)
    return new.model_copy(update={key: getattr(old, key) for key in differ})
