"""What the operating system refuses is said in one way, with what to do."""

import errno
import os

import pytest

from khmer_ocr.errors import OutputError, SplitNotFoundError
from khmer_ocr.io.os_errors import output_error, output_errors


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "out can't be written: No space left on device. Free some space, or name another. Go on."),
        (errno.EDQUOT, "No space left on device"),
        (errno.EFBIG, "No space left on device"),
        (errno.EROFS, "Read-only file system. Make it writable, or name another. Go on."),
        (errno.EACCES, "Permission denied. Make it writable"),
        (errno.ENOTDIR, "Not a directory. A file stands where a folder is expected"),
        (errno.EMFILE, "Too many open files. Raise the limit"),
        (errno.EIO, "Input/output error. Check it, or name another. Go on."),
    ],
)
def test_os_errors_say_what_to_do(number: int, said: str) -> None:
    with pytest.raises(OutputError) as caught, output_errors("out", "name another", "Go on."):
        raise OSError(number, os.strerror(number))
    assert said in str(caught.value)


def test_other_errors_keep_their_words() -> None:
    assert str(output_error(RuntimeError("zip: full"), "x.pth")) == "x.pth can't be written: zip: full. Check it."
    with pytest.raises(SplitNotFoundError, match=r"^train\.txt$"), output_errors("out"):
        raise SplitNotFoundError("train.txt")
    with pytest.raises(KeyError), output_errors("out"):
        raise KeyError
