"""Where do the files of a sweep go, so that there are all of them or none?"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowos.model.errors import FileError

PAGE: Final = "index.html"
TABLE: Final = "results.csv"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is still to be written, or that an earlier sweep has written."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "Folder":
        """Return a folder that can be written, before minutes are spent on what goes into it.

        Raises:
            FileError: It cannot be.
        """
        if path.exists() and not path.is_dir():
            raise FileError("is a file", path=str(path), hint="name a folder")
        if not path.is_dir():
            if not path.absolute().parent.is_dir():
                raise FileError(
                    "its folder does not exist", path=str(path), hint=f"mkdir -p {path.parent}"
                )
        elif any(path.iterdir()) and not ((path / PAGE).is_file() and (path / TABLE).is_file()):
            raise FileError("holds other things", path=str(path), hint="name a new folder")
        found = cls(path)
        found._beside().rmdir()
        return found

    def write(self, files: Mapping[str, str]) -> list[Path]:
        """Write all files, the page last; return where they are.

        What an earlier sweep has left is replaced, and its pictures are removed.

        Raises:
            FileError: The disk refuses; nothing that was there before has changed.
        """
        hidden = self._beside()
        try:
            beside = hidden / "new"  # a temporary folder itself is for its owner alone
            beside.mkdir()
            for name, text in files.items():
                (beside / name).write_text(text, encoding="utf-8")
            if self.path.is_dir():
                for old in self.path.glob("*.svg"):
                    if old.name not in files:
                        old.unlink()
                for name in sorted(files, key=lambda name: name == PAGE):
                    (beside / name).replace(self.path / name)
            else:
                beside.rename(self.path)
        except OSError as error:
            raise self._refused(error) from None
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        return [self.path / name for name in files]

    def _beside(self) -> Path:
        """Make a folder beside this one, and return it."""
        try:
            return Path(
                tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.absolute().parent)
            )
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> FileError:
        return FileError(
            f"cannot be written: {error.strerror or error}",
            path=str(self.path),
            hint="name another",
        )
