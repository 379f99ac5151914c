"""A file of many results, which goes on where it broke off, and which several processes may fill.

Until all is done they lie beside `NAME` in a folder `NAME.parts`: a file of JSON lines for each process, whose lines
are written as they come, and the settings that all of them are made with.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import ConfigError, ResourceError

SETTINGS_FILE = "settings.json"
LOCK_FILE = "lock"


class ResultsFile:
    """Results of files by name, a JSON object a line.

    Args:
        path: The file that holds them in the end; not there yet.
        settings: What they depend on, a JSON object: those of other settings are not mixed with these.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = Path(path), settings
        self.parts = self.path.with_name(f"{self.path.name}.parts")
        self._lock = FileLock(self.parts / LOCK_FILE, timeout=0)

    def open(self) -> set[str]:
        """Takes the place for itself; returns the names of which there are results already.

        Raises:
            ConfigError: when the file is there, or what lies there is another's.
        """
        if self.path.exists():
            raise ConfigError(f"output={str(self.path)!r} is there already: name another file, or remove it.")
        with self._told_errors():
            self.parts.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                raise ConfigError(
                    f"output={str(self.path)!r} is being written by another process: wait for it, or name another file."
                ) from None
            settings = self.parts / SETTINGS_FILE
            if not any(self.parts.glob("*.jsonl")):
                settings.write_text(json.dumps(self.settings), encoding="utf-8")
            elif self._read_settings() != self.settings:
                raise ConfigError(
                    f"{str(self.parts)!r} holds results of another checkpoint or of other options: remove it, or name "
                    "another output."
                )
            for part in self.parts.glob("*.jsonl"):
                _cut_torn_line(part)
            return {json.loads(line)["file"] for line in self._lines()}

    def write(self, rows: Iterable[dict[str, Any]], number: int) -> None:
        """Adds results to the file of a process, each with the system before the next is asked for.

        Raises:
            ResourceError: when the disk is full.
        """
        with self._told_errors(), open(self.parts / f"{number}.jsonl", "ab") as file:
            for row in rows:
                file.write(_line(row))
                file.flush()

    def close(self, names: Sequence[str]) -> int:
        """Puts all results into one file, in the order of `names`; returns how many of them are errors."""
        with self._told_errors():
            rows = {json.loads(line)["file"]: line for line in self._lines()}
            merged = self.parts / "merged"
            with open(merged, "wb") as file:
                file.writelines(rows[name] for name in names)
            os.replace(merged, self.path)
            self.leave()
            shutil.rmtree(self.parts)
        return sum("error" in json.loads(rows[name]) for name in names)

    def leave(self) -> None:
        """Lets another process go on with it."""
        self._lock.release()

    def _lines(self) -> Iterator[bytes]:
        for part in sorted(self.parts.glob("*.jsonl")):
            with open(part, "rb") as file:
                yield from file

    def _read_settings(self) -> Any:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.parts / SETTINGS_FILE).read_text(encoding="utf-8"))
        return None

    @contextlib.contextmanager
    def _told_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"output={str(self.path)!r} cannot be written ({error.strerror or error}); the same command goes on "
                "from what is there."
            ) from error


def _line(row: dict[str, Any]) -> bytes:
    try:
        return f"{json.dumps(row, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # a name of bytes that are no text
        return f"{json.dumps(row)}\n".encode()


def _cut_torn_line(part: Path) -> None:
    """Removes what a process that was killed had written of its last line."""
    content = part.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(part, whole)
