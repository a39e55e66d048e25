"""Sound files by their names; the format of a sound is read from its content."""

from __future__ import annotations

from pathlib import Path

from repbench.audio.sound import ENDINGS, ENDINGS_TO_CONVERT
from repbench.errors import DataError, quoted


def is_sound(path: Path) -> bool:
    """Whether the name of a file ends like that of a sound in a format that repbench reads.

    Raises:
        DataError: It ends like a sound in another format; the error gives the command that converts it.
    """
    ending = path.suffix.lower()
    if ending in ENDINGS_TO_CONVERT:
        do = f"Convert it first: ffmpeg -i {quoted(path.name)} -ac 1 -ar 16000 {quoted(path.stem + '.wav')}"
        raise DataError(f"{ending} files are not read", file=path, do=do)
    return ending in ENDINGS


def sounds_in(folder: Path) -> list[Path]:
    """The sounds of a folder, sorted, without hidden ones and without those of its subfolders; errors as `is_sound`.

    Two files of one stem are two utterances of one id, which `repbench.corpora.manifest.write` refuses by both names.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_sound(path))


def without_ending(name: str) -> str:
    """The name of a sound without the ending of its format; other names as they are."""
    ending = Path(name).suffix
    return name.removesuffix(ending) if ending.lower() in ENDINGS else name
