"""Every error that a user can fix. Each message says what was expected, what came, and the remedy."""

import errno
import os
import re


class IFGuideError(Exception):
    """Base of all errors that the command line and the app show as one plain sentence."""


class InputError(IFGuideError):
    """A file, data set or model given by the user cannot be used."""


class ConfigError(IFGuideError):
    """A setting is unknown, of the wrong type or out of range."""


class StudyNotFound(IFGuideError):
    """The cache has no study of that name."""


class StaleError(IFGuideError):
    """An artefact is missing, damaged, or made from other inputs; the message names the command that rebuilds it."""


class BusyError(IFGuideError):
    """Another process is working on the same study."""


class NumericalError(IFGuideError):
    """A result is not finite, or less exact than required."""


class ProcessError(IFGuideError):
    """Another process of the same run failed or disappeared."""


_FREE_SPACE = "free some space, or move the cache with IFGUIDE_CACHE, and give the same command again"
_OWN_FOLDER = "change its permissions, or set IFGUIDE_CACHE to a folder of your own"
_REMEDIES = {
    errno.ENOTDIR: "a file is where a folder has to be; name another place, or set IFGUIDE_CACHE to another folder",
    errno.ENOSPC: f"the disk is full; {_FREE_SPACE}",
    errno.EDQUOT: f"the disk quota is used up; {_FREE_SPACE}",
    errno.EFBIG: "the file exceeds the size limit; raise it (`ulimit -f`), and give the same command again",
    errno.EROFS: "the disk is read-only; copy the study, or set IFGUIDE_CACHE to a folder that can be written",
    errno.EACCES: f"you may not read or write it; {_OWN_FOLDER}",
    errno.EPERM: f"you may not change it; {_OWN_FOLDER}",
    errno.EMFILE: "too many files are open; raise the limit (`ulimit -n`), and give the same command again",
    errno.ENOMEM: "memory is used up; close other programs, or lower compute.tokens_per_batch or training.batch_size",
}


def describe_error(error: BaseException) -> str:
    """One sentence about any error."""
    own = str(error) if isinstance(error, IFGuideError) else explain_system_error(error)
    return own or f"{type(error).__name__}: {error}"


def explain_system_error(error: BaseException) -> str | None:
    """One sentence about an error that the operating system caused: what was refused, where, and the remedy; else None.

    The causes of `error` are searched too. Libraries in C++ and Rust wrap the system's errors in their own; the number
    or the words are still in the message.
    """
    if (cause := _find_system_error(error)) is None:
        return None
    code, place = cause
    return place + "; ".join(filter(None, (os.strerror(code), _REMEDIES.get(code))))


def system_reason(error: BaseException) -> str:
    """What the operating system refused, without place and remedy, such as "No space left on device; the disk is full";
    empty where it refused nothing."""
    if (cause := _find_system_error(error)) is None:
        return ""
    return "; ".join(filter(None, (os.strerror(cause[0]), _REMEDIES.get(cause[0], "").partition(";")[0])))


def _find_system_error(error: BaseException) -> tuple[int, str] | None:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if (code := _code(at)) is not None:
            return code, f"{at.filename}: " if isinstance(at, OSError) and at.filename else ""
        at = at.__cause__ or at.__context__
    return None


def _code(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return errno.ENOMEM
    text = str(error)
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", text):
        return errno.ENOSPC  # NumPy's message when the disk takes only a part of an array
    if match := re.search(r"\b(?:os error|errno:?) (\d+)", text, flags=re.IGNORECASE):
        return int(match[1])
    return next((code for code in _REMEDIES if os.strerror(code) in text), None)
