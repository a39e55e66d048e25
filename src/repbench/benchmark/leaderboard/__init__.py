"""A leaderboard: a folder of submitted records, one file each, that anyone can check and draw again.

`head` says what is taken, `submission` is the form of a file, `references` what every submission has to have answered,
`board` admits and checks, `page` draws.
"""

from repbench.benchmark.leaderboard.board import Admitted, Leaderboard
from repbench.benchmark.leaderboard.references import References, references_of_corpus
from repbench.benchmark.leaderboard.settings import HEAD_FILE, AcceptedTask, LeaderboardSettings

__all__ = [
    "HEAD_FILE",
    "AcceptedTask",
    "Admitted",
    "Leaderboard",
    "LeaderboardSettings",
    "References",
    "references_of_corpus",
]
