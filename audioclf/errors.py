"""Errors a user may see: each message is one sentence that names the culprit and says what to do."""


class AudioclfError(Exception):
    """Base of every error this library raises on purpose."""


class AudioError(AudioclfError):
    """A sound that cannot be read or used."""


class DatasetError(AudioclfError):
    """A data set whose layout, labels or splits cannot be used."""


class ConfigError(AudioclfError):
    """An option, or a combination of options, that cannot work."""


class CheckpointError(AudioclfError):
    """A model or checkpoint that cannot be loaded or written."""


class TrainingError(AudioclfError):
    """A run that had to stop: its numbers are no longer finite."""


class ResourceError(AudioclfError):
    """Memory that does not suffice, or a process of ours that the system has ended."""


class HubError(AudioclfError):
    """A repository of the hub that cannot be written."""
