"""Paths that stay under their root and can be written as UTF-8."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from repbench.errors import DataError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class RootFolder:
    """A folder that no path may leave by `..`, an absolute path, a URL or a symbolic link.

    Args:
        folder: The folder; it is made absolute, and may itself be a symbolic link.
        follow_links: Whether a symbolic link may leave it.
    """

    def __init__(self, folder: Path, *, follow_links: bool = False) -> None:
        self._follow_links = follow_links
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - collapses `..` as text, keeps links
        # with its slash, or `/data` would hold `/data2`
        self._prefix = os.fspath(self.folder).rstrip("/") + "/"
        self._real = os.path.realpath(folder)
        self._checked_folders: set[str] = set()
        # What `join` and `relative` were asked last, and found: a corpus asks for each sound several times, and cuts of
        # a file follow each other. One alone of each, so that a link that is set later is seen. Not one for both: the
        # text of a path may be written in several ways, and `relative` has one.
        self._joined: tuple[str, Path] | None = None
        self._found: tuple[Path, str, Path] | None = None

    def locate(self, text: str, *, file: str | Path | None = None, utterance: str | None = None) -> Path:
        """The absolute path of `text`, which is relative to the root, or absolute and under it; errors as `join`."""
        if not text.startswith("/"):
            return self.join(text, file=file, utterance=utterance)
        inside = self._inside(text)
        if inside is not None:
            return self.join(inside, file=file, utterance=utterance)
        what = f"The place `{text}` is absolute and is not under the root {self.folder}"
        raise DataError(what, file=file, utterance=utterance, do="Give a root that holds it, or write it relative")

    def holds(self, path: str) -> bool:
        """Whether an absolute path is under the root, links not followed."""
        return self._inside(path) is not None

    def _inside(self, path: str) -> str | None:
        """An absolute path relative to the root, which may itself be given through a link; None if it is outside."""
        absolute = os.path.normpath(path)
        folder, name = os.path.split(absolute)
        real = f"{os.path.realpath(folder)}/{name}"
        # Both as written, the root resolved, both resolved. The name itself is never resolved: it may be a link.
        for place, root in ((absolute, os.fspath(self.folder)), (absolute, self._real), (real, self._real)):
            prefix = root.rstrip("/") + "/"
            if place.startswith(prefix) and place != prefix:
                return place[len(prefix) :]
        return None

    def join(self, text: str, *, file: str | Path | None = None, utterance: str | None = None) -> Path:
        """The absolute path of `text`, which is relative to the root, with `/` between its parts.

        Raises:
            DataError: The place is absolute, a URL, has a part `..`, cannot be a name, or leads out of the root.
        """
        last = self._joined  # once, as another thread may ask for another place meanwhile
        if last is not None and last[0] == text:
            return last[1]
        fault = _fault_of(text)
        if fault is not None:
            do = "Write it relative to the root of the corpus, without `..`"
            raise DataError(f"The place `{text}` {fault}", file=file, utterance=utterance, do=do)
        if self._leads_out(text):
            what = f"The place `{text}` leads out of the root {self.folder} by a link, to {self._real_place(text)}"
            do = (
                "Prepare the corpus with --follow-links, put the file itself under the root, or give a root that holds "
                "both"
            )
            raise DataError(what, file=file, utterance=utterance, do=do)
        path = Path(self._prefix + text)
        self._joined = text, path
        return path

    def relative(self, path: Path, *, utterance: str | None = None) -> str:
        """The place of `path` relative to the root, with `/` between its parts; the inverse of `join`.

        Raises:
            DataError: The path is not under the root, or leaves it by a link.
        """
        return self._place_of(path, utterance)[1]

    def absolute(self, path: Path, *, utterance: str | None = None) -> Path:
        """`path` as `join` gives it; errors as `relative`."""
        return self._place_of(path, utterance)[2]

    def _place_of(self, path: Path, utterance: str | None) -> tuple[Path, str, Path]:
        last = self._found
        if last is not None and last[0] == path:
            return last
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - as above
        for root in (self.folder, Path(self._real)):
            if absolute.is_relative_to(root):
                text = absolute.relative_to(root).as_posix()
                self._found = found = path, text, self.join(text, file=path, utterance=utterance)
                return found
        do = "Give a root that holds every file"
        raise DataError(f"The file is not under the root {self.folder}", file=path, utterance=utterance, do=do)

    def _real_place(self, text: str) -> str:
        return os.path.realpath(self._prefix + text)

    def may_lead_out(self, folder: str, num_files: int) -> bool:
        """Whether any place in a folder may lead out of the root by a link: then `join` has to look at each of them.

        To look at the whole folder is faster than to look at each file, above all on a disk of another machine.

        Args:
            folder: Relative to the root.
            num_files: How many files of it are meant; a folder with many others is not read to its end.
        """
        if self._follow_links:
            return False
        path = self._prefix + folder
        if not self._is_inside(path):
            return True
        try:
            with os.scandir(path) as entries:
                return any(number > 4 * num_files + 64 or each.is_symlink() for number, each in enumerate(entries))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def _leads_out(self, text: str) -> bool:
        """Whether a symbolic link on the way leaves the root and must not."""
        if self._follow_links:
            return False
        path = self._prefix + text
        if not self._is_inside(path.rpartition("/")[0]):
            return True
        return os.path.islink(path) and not self._holds(path)  # noqa: PTH114 - 100,000 places are read at once

    def _is_inside(self, folder: str) -> bool:
        """Whether a folder is inside the root, links followed; folders that are inside are not tried again."""
        # Resolving costs a system call for each part of a path, and a corpus has few folders for its files.
        if folder in self._checked_folders:
            return True
        if not self._holds(folder):
            return False
        self._checked_folders.add(folder)
        return True

    def _holds(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip("/") + "/")


def common_folder(places: Iterable[str]) -> str | None:
    """The deepest folder that holds every absolute place; None where no place is absolute."""
    absolute = [os.path.normpath(place) for place in places if place.startswith("/")]
    return os.path.commonpath([os.path.dirname(place) for place in absolute]) if absolute else None  # noqa: PTH120


def _fault_of(text: str) -> str | None:
    """The reason why `text` cannot be a path relative to a root; None if it can."""
    if not text or "\0" in text:
        return "is empty or holds a NUL"
    if text[0] == "/" or _DRIVE.match(text):
        return "is absolute"
    if _URL.match(text):
        return "is a URL"
    # the fast test first; `a..b` is a name like any other
    if ".." in text and ".." in text.split("/"):
        return "has a part `..`"
    if not text.isascii() and not is_encodable(text):
        return "is not valid UTF-8"
    return None


def is_encodable(text: str) -> bool:
    """Whether `text` can be written as UTF-8; a name that is not valid UTF-8 on disk cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
