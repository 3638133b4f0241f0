"Doing something without any rights, for tests that may run as the administrator."

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def open_to_all(folder: Path) -> None:
    "Let everybody into a folder of a test and those above it, however many pytest makes of its own."
    for place in (folder, *folder.parents):
        if place.stat().st_uid == os.getuid() and place.name.startswith(("pytest-", "popen-")) or place == folder:
            place.chmod(0o755)


def as_nobody(work: Callable[[], object]) -> str:
    "Do something in a child process that owns nothing here; gives what it raised."
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()
            os.write(writing, b"nothing was raised")
        except BaseException as error:
            os.write(writing, f"{type(error).__name__} {getattr(error, 'exit_code', '')}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    said = os.read(reading, 4000).decode()
    os.close(reading)
    return said
