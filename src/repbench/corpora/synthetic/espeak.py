"""espeak-ng through ctypes. Imported by the worker alone: the library is GPL-3 and may take its process down with it.

The samples of espeak-ng depend on earlier calls (its flutter runs on) and, for a breathy voice, on the time of day,
which seeds its noise. The library is therefore loaded anew for every utterance, in a few milliseconds,
and given a seed, which makes the samples a function of the arguments of `speak`.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from repbench.corpora.synthetic.arpabet import PhoneMark
from repbench.errors import EnvironmentFault

# Values of espeak-ng's `speak_lib.h`.
_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS = 1
_EVENT_LIST_TERMINATED = 0
_EVENT_PHONEME = 7
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_PARAMETER_PITCH_RANGE = 4
_OK = 0


class _Event(ctypes.Structure):
    """`espeak_EVENT`; of the union at its end only the phoneme's name is read."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("phoneme", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Speech(NamedTuple):
    """Synthesised speech: `samples` (T,), their rate in hertz, and the start of each phone."""

    samples: NDArray[np.int16]
    sample_rate_hz: int
    marks: list[PhoneMark]


def speak(
    text: str, voice: str, *, words_per_minute: int, pitch: int, pitch_range: int | None = None, seed: int, home: Path
) -> Speech:
    """Synthesise `text`.

    Args:
        text: The text, in the language of the voice.
        voice: Name of a voice file in `home`.
        words_per_minute: Speaking rate.
        pitch: 0 to 100; 50 is the voice's own.
        pitch_range: 0, monotonous, to 100; None for the voice's own.
        seed: Of the noise in the voice; at least 1.
        home: The folder that holds `espeak-ng-data`.

    Raises:
        EnvironmentFault: espeak-ng refuses the data, the voice or the text.
    """
    with _fresh_library() as library:
        sample_rate_hz = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, bytes(home), _PHONEME_EVENTS)
        if sample_rate_hz <= 0:
            raise EnvironmentFault(f"espeak-ng cannot use its data (code {sample_rate_hz})", file=home, do=_REINSTALL)
        # `long` in its header, where ctypes would pass an int
        _require(library.espeak_ng_SetRandSeed(ctypes.c_long(seed)), "take a seed")
        # `listener` stays a local: ctypes keeps no reference to a callback that a library holds
        chunks, marks, listener = _listener()
        library.espeak_SetSynthCallback(listener)
        _require(library.espeak_SetVoiceByName(voice.encode()), f"choose the voice `{voice}`")
        _require(library.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0), "set its pace")
        _require(library.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0), "set its pitch")
        if pitch_range is not None:
            _require(library.espeak_SetParameter(_PARAMETER_PITCH_RANGE, pitch_range, 0), "set its range of pitch")
        _require(_synthesise(library, text.encode()), f"synthesise {text!r}")
        _require(library.espeak_Terminate(), "end")
    if not chunks:
        raise EnvironmentFault(f"espeak-ng gave no speech for {text!r}", do=_REINSTALL)
    return Speech(np.concatenate(chunks), sample_rate_hz, marks)


def version() -> str:
    """espeak-ng's own version."""
    with _fresh_library() as library:
        library.espeak_Info.restype = ctypes.c_char_p
        return str(library.espeak_Info(None).decode())


_REINSTALL = "Install it again: pip install --force-reinstall 'repbench[demo]'"


@contextlib.contextmanager
def _fresh_library() -> Iterator[Any]:
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        yield library
    finally:
        # unloaded, so that the next utterance starts from the library's initial state
        _ctypes.dlclose(library._handle)


def _listener() -> tuple[list[NDArray[np.int16]], list[PhoneMark], Any]:
    """Lists of samples and marks, and the callback of espeak-ng that fills them."""
    chunks: list[NDArray[np.int16]] = []
    marks: list[PhoneMark] = []

    def listen(samples: Any, num_samples: int, events: Any) -> int:
        if samples and num_samples:
            # (num_samples,): a copy, because espeak-ng writes the next chunk into the same buffer
            chunks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        index = 0
        while events[index].type != _EVENT_LIST_TERMINATED:
            if events[index].type == _EVENT_PHONEME:
                marks.append(PhoneMark(events[index].sample, events[index].phoneme.decode("ascii", "backslashreplace")))
            index += 1
        # goes on; 1 would end the synthesis
        return 0

    return chunks, marks, _Callback(listen)


def _synthesise(library: Any, text: bytes) -> int:
    return int(library.espeak_Synth(text, len(text) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None))


def _require(code: int, deed: str) -> None:
    """Refuse a return code other than success: espeak-ng otherwise goes on with what it had before."""
    if code != _OK:
        raise EnvironmentFault(f"espeak-ng could not {deed} (code {code})", do=_REINSTALL)
