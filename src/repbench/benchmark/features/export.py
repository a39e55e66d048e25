"""`repbench extract`: hidden states of single sound files, for use outside of repbench."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from repbench.audio.resample import to_rate
from repbench.audio.sound import read_sound
from repbench.benchmark.features.export_declaration import is_declared, write_declaration
from repbench.benchmark.features.extraction import run_sounds
from repbench.errors import DataError, EnvironmentFault, UsageError, is_out_of_memory
from repbench.files import write_beside
from repbench.progress import Reporter, Silence
from repbench.upstream.contract import Upstream, UpstreamInfo
from repbench.upstream.windowed import windows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How hidden states of files are computed and written.

    Attributes:
        device: Device of the upstream.
        resample: Whether a sound of another rate may be resampled.
        origin: Distribution, version and file hash of the upstream, for the metadata; None: not written.
        overwrite: Whether files of other content may be replaced.
        name: Name of the upstream as it was given, for the declaration of the folder; None: that of its info.
        checkpoint: Of the upstream as it was given, likewise.
    """

    device: torch.device
    resample: bool
    origin: Mapping[str, str | None] | None = None
    overwrite: bool = False
    name: str | None = None
    checkpoint: str | None = None


def extract_files(
    upstream: Upstream, files: Sequence[Path], out: Path, options: ExportOptions, *, reporter: Reporter | None = None
) -> list[Path]:
    """Write `OUT/STEM.safetensors` for each sound: `hidden_states` (L, F, D) float32, info and origin as metadata.

    Metadata of a sound that was read in windows name them. `OUT/features.yaml` declares them for `features:OUT`; one
    that is there stays, unless it is of other features.

    Args:
        upstream: Model in eval mode, on the device of the options.
        files: Sound files; no two of the same stem.
        out: Folder of the new files.
        options: How they are computed and written.
        reporter: Shows the progress.

    Returns:
        The paths of the new files.

    Raises:
        UsageError: Two files have the same stem, a file of other content exists, or the folder is declared as one of
            other features.
        DataError: A sound cannot be read, is too short, or has another rate and `resample` is false.
        EnvironmentFault: The memory does not suffice for a sound.
    """
    from safetensors.torch import save

    refuse_same_stems(files, ".safetensors")
    declared = is_declared(upstream, out, overwrite=options.overwrite)
    info = upstream.info
    written = []
    with (reporter or Silence()).stage(f"{info.name}: hidden states") as advance:
        for file in files:
            with naming_what_is_too_large(file):
                sound, rate_hz = sound_for(info, file, resample=options.resample)
                states = run_sounds(upstream, [sound], device=options.device, names=[str(file)])
                hidden = states.layers[:, 0].float().cpu().contiguous()  # (L, 1, F, D) -> (L, F, D)
            metadata = {
                "info": json.dumps(info.as_dict()),
                "fingerprint": upstream.fingerprint(),
                "source_rate_hz": str(rate_hz),
                **({} if (windows := windows_of(upstream, len(sound))) is None else {"windows": windows.line()}),
                **({} if options.origin is None else {"origin": json.dumps(dict(options.origin))}),
            }
            path = out / f"{file.stem}.safetensors"
            content = save({"hidden_states": hidden}, metadata)
            write_beside(path, content, overwrite=options.overwrite, same=_is_same_content)
            written.append(path)
            advance(len(written), len(files))
    if not declared:
        write_declaration(upstream, out, given=options.name, checkpoint=options.checkpoint, overwrite=options.overwrite)
    return written


@contextlib.contextmanager
def naming_what_is_too_large(file: Path) -> Iterator[None]:
    """Turn an out-of-memory error into one that names the sound.

    Raises:
        EnvironmentFault: The memory does not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        do = "Give --window-seconds 30, cut it into shorter files, or take another device"
        raise EnvironmentFault("The memory does not suffice for this sound", file=file, do=do) from error


def _is_same_content(file: bytes, content: bytes) -> bool:
    """Whether two safetensors files have the same content, in whatever order their metadata is."""
    start = 8 + int.from_bytes(content[:8], "little")  # the size of the header, and the header
    if file[:8] != content[:8] or file[start:] != content[start:]:
        return False
    try:
        return bool(json.loads(file[8:start]) == json.loads(content[8:start]))
    except ValueError:
        return False


def sound_for(info: UpstreamInfo, file: Path, *, resample: bool) -> tuple[Tensor, int]:
    """Read a sound file as the input of an upstream.

    Args:
        info: Info of the upstream.
        file: Sound file.
        resample: Whether a sound of another rate may be resampled.

    Returns:
        (T,) float32 at the upstream's rate, and the rate of the file.

    Raises:
        DataError: The sound cannot be read, is too short or too long, or has another rate and `resample` is false.
    """
    samples, rate_hz = read_sound(file)
    if rate_hz != info.sample_rate_hz and not resample:
        raise DataError(
            f"{info.name} expects {info.sample_rate_hz} Hz, but the sound has {rate_hz} Hz",
            file=file,
            do="Give --resample to resample it",
        )
    sound = to_rate(samples, rate_hz, info.sample_rate_hz)
    if len(sound) < info.min_samples or len(sound) > (info.max_samples or len(sound)):
        bounds = f"from {info.min_samples} to {info.max_samples or 'any number of'} samples"
        raise DataError(f"{info.name} takes {bounds}, but the sound has {len(sound)}", file=file)
    return sound, rate_hz


def refuse_same_stems(files: Sequence[Path], ending: str) -> None:
    """Refuse files whose output would have the same name, their stem and `ending`.

    Raises:
        UsageError: Two files have the same stem.
    """
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(file.stem, file)
        if other != file:
            raise UsageError(
                f"Two files would be written to {file.stem}{ending}: {other} and {file}",
                file=file,
                do="Write them into two folders",
            )
