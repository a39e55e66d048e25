"""The attribute `gender`: F and M, whichever way a corpus writes them."""

from __future__ import annotations

_WRITTEN = {
    "F": ("f", "female", "female_feminine", "woman"),
    "M": ("m", "male", "male_masculine", "man"),
}
_GENDERS = {written: gender for gender, forms in _WRITTEN.items() for written in forms}


def gender_of(written: str) -> str:
    """F or M; another word, such as `other`, as it is written.

    Example:
        >>> gender_of("male_masculine"), gender_of("Female"), gender_of("other")
        ('M', 'F', 'other')
    """
    return _GENDERS.get(written.strip().casefold(), written.strip())
