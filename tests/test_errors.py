import pytest
import torch

from ifguide.errors import explain_system_error


def wrapped(error: Exception) -> Exception:
    outer = RuntimeError("a library failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 9.00 GiB"), "memory is used up; close other programs, or lower"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "training.batch_size"),
        (NotADirectoryError(20, "Not a directory", "posts.jsonl/mine"), "posts.jsonl/mine: .* name another place"),
        (RuntimeError("PytorchStreamWriter failed: No space left on device"), "the disk is full; free some space"),
    ],
)
def test_what_the_system_refuses_is_said_with_its_remedy(error, said):
    for one in (error, wrapped(error)):
        with pytest.raises(RuntimeError, match=said):
            raise RuntimeError(explain_system_error(one))


def test_another_error_is_not_explained():
    assert explain_system_error(wrapped(ValueError("a bug"))) is None
