"""Texts of conditions, and what holds for every kind."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from repbench.audio.disturbances.base import Disturbance
from repbench.audio.disturbances.condition import KINDS, PRESETS, Condition, parse_condition
from repbench.audio.disturbances.severities import TABLE, values_of
from repbench.errors import UsageError
from tests.audio.disturbances.sounds import disturbed, hiss, some_voices

WITH_SEVERITIES = [
    f"{each.kind}:{each.variant}" if each.variant else each.kind
    for each in KINDS
    if each.variant != "FOLDER" and values_of(each.kind, each.variant, 1) is not None
]
EVERY_KIND = [*(f"{head}:s{severity}" for head in WITH_SEVERITIES for severity in (1, 5)), "codec:ulaw"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("noise:white:10", "noise:white:10"),
        ("noise:white:3", "noise:white:3"),  # 3 dB, not severity 3
        ("noise:babble:s3", "noise:babble:s3"),
        ("noise:white:snr=2.50", "noise:white:2.5"),
        ("noise:./my+noises:at:night:5", "noise:./my+noises:at:night:5"),
        ("noise:/noises:s2", "noise:/noises:s2"),
        ("reverb:3", "reverb:s3"),
        ("reverb:t60=0.50,distance=1.5", "reverb:t60=0.5"),
        ("reverb:./rooms", "reverb:./rooms"),
        ("telephone", "telephone:s3"),
        ("rate:8000", "rate:hz=8000"),
        ("codec:gsm", "codec:gsm:s1"),
        ("codec:ulaw", "codec:ulaw"),
        ("codec:opus:16", "codec:opus:kbits=16"),
        ("clip:0.05", "clip:share=0.05"),
        ("gain:db=-12", "gain:db=-12"),
        ("loss:share=.1,burst=3", "loss:share=0.1,burst=3"),
        ("silence:before=0.5", "silence:before=0.5"),
        ("shift:half-hop", "shift:ms=5"),
        ("reverb:2+noise:pink:s1+telephone", "reverb:s2+noise:pink:s1+telephone:s3"),
    ],
)  # fmt: skip
def test_a_text_has_one_canonical_form(text: str, name: str) -> None:
    condition = parse_condition(text)
    assert condition.name == name
    assert parse_condition(name) == condition


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("nois:white:1", "no disturbance `nois`.*Did you mean `noise`.*noise, reverb, telephone"),
        ("", "no disturbance ``"),
        ("noise:whte:1", "no variant `whte`.*Did you mean `white`.*white, pink, babble, FOLDER.*with a slash"),
        ("noise:white", r"does not give `snr`.*noise:white:s0 to noise:white:s5; or snr=-20 to 60 dB"),
        ("noise:./noises", r"does not give `snr`.*noise:FOLDER:s0 to noise:FOLDER:s5; or snr="),
        ("noise:white:snr=99", "`snr` is 99.*snr=-20 to 60 dB"),
        ("gain:9", "no parameter `9`.*db=-80 to 40 dB"),
        ("gain:s7", "no severity 7"),
        ("codec:ulaw:s1", r"no severity 1.*Write codec:ulaw\.$"),
        ("codec:mp3:20", "`kbits` is 20.*kbits=8, 16, 24"),
        ("codec:gsm:passes=1.5", "`passes` is 1.5"),
        ("speed:factr=2", "no parameter `factr`.*Did you mean `factor`"),
        ("speed:factor=fast", "`factor` must be a number, but is `fast`"),
        ("reverb", "does not give `t60`"),
        ("silence", "does not say how much"),
        ("noise:white:10+clip:2x", "no parameter `2x`.*key noise:white:10.clip:2x"),
    ],
)
def test_a_text_that_names_nothing_is_refused_with_what_there_is(text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        parse_condition(text)


def test_the_facts_of_a_condition() -> None:
    one, two = parse_condition("reverb:s3"), parse_condition("reverb:s3+noise:babble:7")
    assert (one.kind, one.severity, one.parameters) == ("reverb", 3, {"t60": 0.6, "distance": 2.0})
    assert (two.kind, two.severity) == ("reverb+noise:babble", None)
    assert two.parameters == {"1.t60": 0.6, "1.distance": 2.0, "2.snr": 7.0}
    assert (one.needs_voices, two.needs_voices) == (False, True)
    assert not parse_condition("noise:babble:s0").needs_voices
    # the text, and the version of the code of each step
    assert two.key() == "reverb:s3@1+noise:babble:7@1"


def test_the_preset_has_twenty_different_conditions_in_canonical_form() -> None:
    robust = PRESETS["robust"]
    assert len(set(robust)) == len(robust) == 20
    assert [parse_condition(text).name for text in robust] == list(robust)


def test_every_severity_has_the_values_of_its_ranges() -> None:
    for head, rows in TABLE.items():
        kind, _, variant = head.partition(":")
        for made in (each for each in KINDS if each.kind == kind and variant in ("", each.variant) and each.ranges):
            assert len(rows) == 5
            for row in rows:
                assert row.keys() <= made.ranges.keys()
                for name, value in row.items():
                    assert made.ranges[name].low <= value <= made.ranges[name].high, (head, name)


@pytest.mark.parametrize("head", [*WITH_SEVERITIES, "codec:ulaw"])
def test_severity_0_is_the_identity_to_the_last_bit(head: str) -> None:
    samples = hiss(1_234)
    condition = parse_condition(f"{head}:s0")
    assert condition.is_identity
    assert condition.parameters == {}
    assert disturbed(condition.name, samples).tobytes() == samples.tobytes()
    assert condition.num_samples(1_234, 16_000) == 1_234
    assert (condition.moved(0.3, 1.0), condition.lasting(1.0)) == (0.3, 1.0)


@pytest.mark.parametrize("text", EVERY_KIND)
def test_every_other_severity_changes_the_sound(text: str) -> None:
    samples = hiss(16_000)
    assert not parse_condition(text).is_identity
    assert disturbed(text, samples).tobytes() != samples.tobytes()


@pytest.mark.parametrize("text", [*EVERY_KIND, "reverb:s2+speed:s3+noise:babble:3"])
def test_lengths_are_known_before_and_the_sound_is_left_alone(text: str) -> None:
    condition = parse_condition(text)
    for num_samples in (1, 2, 3, 100, 319, 321, 4_999, 16_001):
        for rate_hz in (8_000, 16_000, 22_050, 44_100):
            samples = hiss(num_samples)
            before = samples.tobytes()
            after = condition.apply(samples, rate_hz, np.random.default_rng(1), some_voices)
            assert after.shape == (condition.num_samples(num_samples, rate_hz),), (num_samples, rate_hz)
            assert after.dtype == np.float32
            assert np.isfinite(after).all()
            assert samples.tobytes() == before


@pytest.mark.parametrize("text", EVERY_KIND)
def test_lengths_and_seconds_agree(text: str) -> None:
    condition = parse_condition(text)
    assert condition.num_samples(160_000, 16_000) / 16_000 == pytest.approx(condition.lasting(10.0), abs=1e-4)
    # what comes first stays first, and nothing is moved out of the sound
    instants = [condition.moved(seconds, 10.0) for seconds in (0.0, 4.0, 10.0)]
    assert instants == sorted(instants)
    assert instants[0] >= 0.0
    assert instants[-1] <= condition.lasting(10.0) + 1e-9


def test_steps_move_an_instant_one_after_another() -> None:
    condition = parse_condition("silence:before=1,after=2+speed:factor=2")
    # 10 s become 13 s, and then 6.5 s
    assert condition.moved(4.0, 10.0) == pytest.approx(2.5)
    assert condition.lasting(10.0) == pytest.approx(6.5)


class _Reversed(Disturbance):
    """Played backwards: where an instant lies depends on the duration."""

    kind = "reversed"

    def _moved(self, seconds: float, duration: float) -> float:
        return duration - seconds


def test_a_step_knows_how_long_the_sound_is_by_then() -> None:
    condition = Condition((*parse_condition("silence:before=1,after=2").steps, _Reversed()))
    assert condition.moved(4.0, 10.0) == pytest.approx(13.0 - 5.0)


@pytest.mark.parametrize("text", EVERY_KIND)
def test_the_generator_alone_decides(text: str) -> None:
    """In one thread, in several at once and in another order: the same to the last bit."""
    sounds = [hiss(num_samples, num_samples) for num_samples in (4_000, 16_000, 9_999, 12_345)]
    alone = [disturbed(text, each, seed=seed).tobytes() for seed, each in enumerate(sounds)]
    with ThreadPoolExecutor(3) as pool:
        together = pool.map(lambda seed: disturbed(text, sounds[seed], seed=seed).tobytes(), (3, 1, 0, 2))
    assert [*together] == [alone[3], alone[1], alone[0], alone[2]]


@pytest.mark.slow
def test_another_process_gives_the_same_samples() -> None:
    texts = ["noise:pink:s2", "reverb:s2", "codec:opus:s3", "codec:mp3:s5", "loss:s5", "tempo:s2"]
    code = (
        "import hashlib\n"
        "from tests.audio.disturbances.sounds import disturbed, hiss\n"
        f"print([hashlib.sha256(disturbed(text, hiss(8_000)).data).hexdigest() for text in {texts}])"
    )
    printed = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert printed[0] == printed[1] != "[]\n"


def test_a_condition_is_read_without_loading_torch_or_scipy() -> None:
    code = (
        "import sys\nfrom repbench.audio.disturbances.condition import parse_condition\n"
        "parse_condition('reverb:s3+noise:babble:s2+codec:opus:s1')\n"
        "sys.exit(', '.join({'torch', 'scipy', 'soundfile', 'soxr'} & set(sys.modules)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
