"""Child processes that measure fonts, both ends: the parent's `measure_in_children` and, as a program, the child.

The child gets faces as JSON on standard input and prints one JSON object a face on standard output. A face is blamed
only for what it did: a crash of the child while at it, twice, the second time with kernels compiled anew, for a damaged
kernel crashes too. Any other end of a child (killed from outside, out of memory, too late, a fault of ours) is tried
once more, and if it comes again the face is left out of this run and not remembered.
"""

import json
import logging
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.io.worker_process import OWN_CRASHES, child_environment, child_python, end_of
from khmer_ocr.render.face_metrics import UNMEASURED, FaceMetrics, from_json

log = logging.getLogger(__name__)
TIMEOUT_S = 120.0
"""What a child may take for one face; a whole one takes under a second."""
MEMORY_BYTES = 4 << 30
_FACES_PER_CHILD = 4
_DYING_S = 10.0


class _Child:
    """A child process and the faces it has still to do.

    Args:
        faces: what to measure.
        again: why a child before this one did not get past the first face; its kernels are then compiled anew.
    """

    def __init__(self, faces: Sequence[FontFace], again: str = "") -> None:
        self.faces, self.again = deque(faces), again
        self._kernels = tempfile.TemporaryDirectory(prefix="khmer_ocr-kernels-") if again else None
        environment = child_environment()
        if self._kernels:
            environment["NUMBA_CACHE_DIR"] = self._kernels.name
        task = json.dumps([{**asdict(face), "files": [str(file) for file in face.files]} for face in faces])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        with tempfile.TemporaryFile() as task_file:
            task_file.write(task.encode())
            task_file.seek(0)
            # A process group of its own: Ctrl-C stops the parent, which stops its children, and no font is blamed.
            self.process = subprocess.Popen(
                child_python("khmer_ocr.render.measure_worker"),
                stdin=task_file,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                process_group=0,
            )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        self.deadline_s = time.monotonic() + TIMEOUT_S
        self.late = False
        self._buffer = b""

    def read(self) -> tuple[list[FaceMetrics], bool]:
        """What has been measured since the last call, and whether the child is still there."""
        chunk = os.read(self.pipe, 1 << 16)
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        self.deadline_s = time.monotonic() + TIMEOUT_S
        return [from_json(json.loads(line)) for line in lines], bool(chunk)

    def stop(self, *, ended: bool = False) -> tuple[int, str]:
        """End the process, if it has not `ended` by itself; its exit status and the last thing it said."""
        if ended:
            # Its pipe is closed, so it is dying of something; what, is worth a moment's wait.
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_DYING_S)
        self.process.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        code = self.process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        if self._kernels:
            self._kernels.cleanup()
        return code, f"it took over {TIMEOUT_S:g} s" if self.late else said[-1] if said else "no message"


def measure_in_children(faces: Sequence[FontFace]) -> Iterator[tuple[FontFace, FaceMetrics]]:
    """Measure faces in several processes at once, in whatever order they finish.

    Args:
        faces: faces to measure.

    Yields:
        Each face with its metrics; one that killed its process has `fatal`.
    """
    count = min(os.cpu_count() or 1, -(-len(faces) // _FACES_PER_CHILD))
    children = {child.pipe: child for child in (_Child(faces[n::count]) for n in range(count))}
    with selectors.DefaultSelector() as selector:
        for pipe in children:
            selector.register(pipe, selectors.EVENT_READ)
        try:
            while children:
                wait_s = min(child.deadline_s for child in children.values()) - time.monotonic()
                for key, _ in selector.select(max(wait_s, 0.0)):
                    child = children[key.fd]
                    measured, alive = child.read()
                    for metrics in measured:
                        child.again = ""
                        yield child.faces.popleft(), metrics
                    if alive:
                        continue
                    selector.unregister(key.fd)
                    del children[key.fd]
                    code, said = child.stop(ended=True)
                    again = ""
                    if child.faces:
                        again = f"{end_of(code)}: {said}"
                        if child.again or child.late:
                            yield child.faces[0], _failed(child.faces.popleft(), code, said)
                            again = ""
                        else:
                            log.warning("measuring font %s ended (%s); it is tried again", child.faces[0].name, again)
                    if child.faces:
                        heir = _Child(list(child.faces), again)
                        children[heir.pipe] = heir
                        selector.register(heir.pipe, selectors.EVENT_READ)
                for child in children.values():
                    if child.deadline_s < time.monotonic():
                        child.late = True
                        child.process.kill()
        finally:
            for child in children.values():
                child.stop()


def _failed(face: FontFace, code: int, said: str) -> FaceMetrics:
    own = -code in OWN_CRASHES
    what = "crashed the process that measured it, twice" if own else UNMEASURED
    log.warning("font %s %s (%s: %s); it is left out", face.name, what, end_of(code), said)
    todo = "khmer-ocr fonts check --retry measures it again" if own else "run the same command again"
    return FaceMetrics(fatal=f"it {what} ({end_of(code)}: {said}); {todo}")


def main() -> None:
    """Measure each face and print its metrics as soon as they are known."""
    from khmer_ocr.render.measure import measure

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for fields in json.load(sys.stdin):
        variations = tuple((tag, value) for tag, value in fields.pop("variations"))
        files = tuple(Path(file) for file in fields.pop("files"))
        face = FontFace(**fields, files=files, variations=variations)
        try:
            metrics = measure(face)
        except FontError as error:
            metrics = FaceMetrics(fatal=str(error))
        print(json.dumps(asdict(metrics)), flush=True)


if __name__ == "__main__":
    main()
