"""Finding the files under the root of a corpus: exclusions, hidden names and symbolic links."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from repbench.corpora.contract import PrepareOptions
from repbench.errors import DataError, EnvironmentFault


def refuse_missing_root(root: Path) -> None:
    """Refuse a root that is no folder.

    Raises:
        DataError: There is no such folder.
    """
    if not root.is_dir():
        raise DataError("The root folder does not exist", file=root, do="Check --root")


def is_there(path: Path) -> bool:
    """Whether there is a file; False for a name that no disk can hold too, for which `Path.is_file` raises."""
    return os.path.isfile(path)  # noqa: PTH113


def files_under(folder: Path, options: PrepareOptions | None = None, *, root: Path | None = None) -> Iterator[Path]:
    """Every file anywhere under a folder, sorted; names that begin with a dot are passed over, folders of them too.

    What `options.exclude` names is passed over too. A link to a folder under the root is passed over; one that
    leads out of the root is followed with `options.follow_links`, and else refused. A link to a file is kept even if it
    leads to nothing, so that the lost utterance is reported.

    Args:
        folder: The root of the corpus, or a folder in it.
        options: What is left out, and whether links are followed.
        root: The root of the corpus; None: the folder itself.

    Raises:
        DataError: A linked folder leads out of the root or back to one of its parents.
        EnvironmentFault: A folder may not be read.
    """
    walk = _Walk(folder if root is None else root, options or PrepareOptions())
    # sorted: the order of a directory depends on the file system
    yield from sorted(walk.files(folder, walk.chain(folder)))


def excluded_files(root: Path, options: PrepareOptions) -> Counter[str]:
    """The number of files that each glob of `options.exclude` leaves out; errors as `files_under`."""
    walk = _Walk(root, options)
    for _ in walk.files(root, walk.chain(root)):
        pass
    return walk.left_out


class _Walk:
    """The search for files under a root.

    Attributes:
        left_out: From each glob to the number of files that it has left out so far.
    """

    def __init__(self, root: Path, options: PrepareOptions) -> None:
        self.left_out: Counter[str] = Counter()
        self._root = root
        self._real_root = Path(os.path.realpath(root))
        self._options = options

    def chain(self, folder: Path) -> frozenset[str]:
        """The real places of a folder and of those above it up to the root."""
        above = [each for each in folder.parents if each.is_relative_to(self._root)]
        return frozenset(os.path.realpath(each) for each in (folder, *above))

    def files(self, folder: Path, chain: frozenset[str]) -> Iterator[Path]:
        """The files under a folder; `chain` holds the real paths of the folder and of its parents."""
        for path in self._listed(folder):
            if path.name.startswith(".") or self._is_excluded(path):
                continue
            if not path.is_dir():
                if path.is_file() or path.is_symlink():
                    yield path
            elif not path.is_symlink() or self._is_to_be_followed(path, chain):
                real = os.path.realpath(path)
                # by real paths, because a circle of links has ever longer names
                if real in chain:
                    self._refuse_circle(path, real)
                yield from self.files(path, chain | {real})

    def _listed(self, folder: Path) -> list[Path]:
        try:
            return list(folder.iterdir())
        except PermissionError as error:
            do = f"Give yourself leave to read it, or leave it out with --exclude '{folder.name}'"
            raise EnvironmentFault("The folder may not be read", file=folder, do=do) from error

    def _is_excluded(self, path: Path) -> bool:
        if not self._options.exclude:
            return False
        place = path.relative_to(self._root).as_posix()
        glob = next((glob for glob in self._options.exclude if is_excluded(place, [glob])), None)
        if glob is None:
            return False
        is_folder = path.is_dir() and not path.is_symlink()
        # an excluded folder is counted by its files; a link is not followed for the count
        self.left_out[glob] += sum(len(names) for _, _, names in os.walk(path)) if is_folder else 1
        return True

    def _is_to_be_followed(self, link: Path, chain: frozenset[str]) -> bool:
        """Whether the files under a linked folder are found in no other place."""
        real = Path(os.path.realpath(link))
        if self._options.follow_links and os.fspath(real) in chain:
            self._refuse_circle(link, os.fspath(real))
        if real.is_relative_to(self._real_root):
            place = real.relative_to(self._real_root).as_posix()
            # Under the root the files are found at their own place, unless a hidden folder holds them.
            return any(part.startswith(".") for part in place.split("/") if part != ".")
        if not self._options.follow_links:
            what = f"The folder is a link that leads out of the root, to {real}"
            do = f"Follow links with --follow-links, or leave it out with --exclude '{link.name}'"
            raise DataError(what, file=link, do=do)
        return True

    def _refuse_circle(self, link: Path, real: str) -> NoReturn:
        what = f"The folder is a link that leads back to one of its parents, {real}"
        raise DataError(what, file=link, do=f"Remove it, or leave it out with --exclude '{link.name}'")


def is_excluded(place: str, globs: Sequence[str]) -> bool:
    """Whether a place relative to the root is left out.

    A glob without `/` matches the name of the file or of one of its folders; one with `/` matches the path itself, or
    that of one of its folders, part by part, with `**` for any number of parts. `*`, `?` and `[…]` are as in a
    shell.

    Example:
        >>> is_excluded("a/_background_noise_/x.wav", ["_background_noise_"]), is_excluded("a/b/x.wav", ["b/*"])
        (True, False)
    """
    parts = place.split("/")
    for glob in globs:
        wanted = glob.rstrip("/")
        if "/" not in wanted and any(fnmatch.fnmatchcase(part, wanted) for part in parts):
            return True
        if "/" in wanted:
            names = wanted.removeprefix("./").lstrip("/").split("/")
            if any(_matches(parts[:end], names) for end in range(1, len(parts) + 1)):
                return True
    return False


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    if not names:
        return not parts
    if names[0] == "**":
        return any(_matches(parts[start:], names[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], names[0]) and _matches(parts[1:], names[1:])
