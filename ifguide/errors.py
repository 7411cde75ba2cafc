"""Every error a user can mend. Each message says what was expected, what came, and how to mend it."""

import errno
import os
import re


class IFGuideError(Exception):
    """Base of all errors the command line and the app show as one plain sentence."""


class InputError(IFGuideError):
    """A file, data set or model that the user named cannot be used as it is."""


class ConfigError(IFGuideError):
    """A setting is unknown, of the wrong type or out of range."""


class StudyNotFound(IFGuideError):
    """No study of that name lies in the cache."""


class StaleError(IFGuideError):
    """An artefact is missing, damaged, or was made from other inputs; the message names the command that rebuilds
    it.
    """


class BusyError(IFGuideError):
    """Another process is working on the same study."""


class NumericalError(IFGuideError):
    """A computation gave something that is not a number, or did not reach the exactness it promises."""


class ProcessError(IFGuideError):
    """Another process of the same run failed or disappeared."""


_MEND = {
    errno.ENOSPC: (
        "the disk is full; free some space, or move the cache with IFGUIDE_CACHE, and give the same command again"
    ),
    errno.EDQUOT: (
        "the disk quota is used up; free some space, or move the cache with IFGUIDE_CACHE, and give the same command"
        " again"
    ),
    errno.EFBIG: (
        "the file may not grow that large here; raise the limit (`ulimit -f`), and give the same command again"
    ),
    errno.EROFS: (
        "it lies on a disk that can only be read; copy the study, or set IFGUIDE_CACHE to a folder that can be written"
    ),
    errno.EACCES: "you may not read or write it; change its permissions, or set IFGUIDE_CACHE to a folder of your own",
    errno.EPERM: "you may not change it; change its permissions, or set IFGUIDE_CACHE to a folder of your own",
    errno.EMFILE: "too many files are open; raise the limit (`ulimit -n`), and give the same command again",
    errno.ENOMEM: "the memory is used up; close other programs, or lower compute.tokens_per_batch",
}


def explain_system_error(error: BaseException) -> str | None:
    """One sentence about an error that the operating system is behind: what was refused, where, and how to mend it.

    Libraries in C++ and Rust wrap the system's errors in their own; the number or the words are still in the message.

    Args:
        error: any exception; what caused it is looked at too.

    Returns:
        The sentence, or None when the system has nothing to do with it.
    """
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if (code := _code(at)) is not None:
            what = os.strerror(code)
            where = f"{at.filename}: " if isinstance(at, OSError) and at.filename else ""
            return f"{where}{what}; {_MEND[code]}" if code in _MEND else f"{where}{what}"
        at = at.__cause__ or at.__context__
    return None


def _code(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", text):
        return errno.ENOSPC  # NumPy's words when the disk takes only a part of an array
    if found := re.search(r"\b(?:os error|errno:?) (\d+)", text, flags=re.IGNORECASE):
        return int(found[1])
    return next((code for code in _MEND if os.strerror(code) in text), None)
