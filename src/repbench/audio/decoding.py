"""Forward-only decoding with libsndfile. It imports soundfile, so it is imported where a sound is opened."""

from __future__ import annotations

import soundfile


class ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A sound file that is read forward unless `seek` is called.

    soundfile seeks to its current position after each read of a seekable file. A seek loses samples of MP3 and
    sometimes of Ogg Vorbis, and fails in a FLAC without a total.
    """

    def seekable(self) -> bool:
        """Always false, so that `read` does not seek."""
        return False
