"""Many values in one case: like `pytest.mark.parametrize`, but a failure names the value and is no case of its own."""

import functools
import inspect

import pytest


def for_each(names: str, rows):
    """Run a test once for every row of values, in one case.

    Each row gets its own `tmp_path` and `monkeypatch`. A `functools.partial` among the values is called first, so that
    each row has an object of its own.

    Args:
        names: of the test's arguments, separated by commas.
        rows: a value, or for several names a tuple of values, a row.
    """
    keys = [name.strip() for name in names.split(",")]

    def decorate(test):
        @functools.wraps(test)
        def run(*instance, **fixtures):
            for number, row in enumerate(rows):
                values = dict(zip(keys, row if len(keys) > 1 else [row], strict=True))
                own = fixtures | {k: v() if isinstance(v, functools.partial) else v for k, v in values.items()}
                with pytest.MonkeyPatch.context() as patch:
                    if "monkeypatch" in fixtures:
                        own["monkeypatch"] = patch
                    if "tmp_path" in fixtures:
                        own["tmp_path"] = fixtures["tmp_path"] / str(number)
                        own["tmp_path"].mkdir()
                    try:
                        test(*instance, **own)
                    except BaseException as error:
                        error.add_note(f"with {values}")
                        raise

        signature = inspect.signature(test)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in keys]
        run.__signature__ = signature.replace(parameters=kept)
        return run

    return decorate
