"""libsndfile, read forward only. Imports soundfile, so it is imported where a sound is opened."""

from __future__ import annotations

import soundfile


class ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A sound file in which nothing jumps unless `seek` is called.

    soundfile jumps to where it is after each read of what can be searched. A jump loses samples of MP3 and now and then
    of Ogg Vorbis, and fails in a FLAC that does not say how long it is.
    """

    def seekable(self) -> bool:
        """Never: so that `read` does not jump."""
        return False
