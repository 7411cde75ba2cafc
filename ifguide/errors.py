"""Every error a user can mend. Each message says what was expected, what came, and how to mend it."""


class IFGuideError(Exception):
    """Base of all errors the command line and the app show as one plain sentence."""


class InputError(IFGuideError):
    """A file, data set or model that the user named cannot be used as it is."""


class ConfigError(IFGuideError):
    """A setting is unknown, of the wrong type or out of range."""


class StudyNotFound(IFGuideError):
    """No study of that name lies in the cache."""


class StaleError(IFGuideError):
    """An artefact is missing, damaged, or was made from other inputs; the message names the command that rebuilds it."""


class BusyError(IFGuideError):
    """Another process is working on the same study."""


class NumericalError(IFGuideError):
    """A computation gave something that is not a number, or did not reach the exactness it promises."""


class ProcessError(IFGuideError):
    """Another process of the same run failed or disappeared."""
