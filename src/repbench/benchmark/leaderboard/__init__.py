"""A leaderboard: a folder of submitted records, one file each, that anyone can verify and publish again.

`settings` defines the accepted tasks, `submission` the file format, `references` the test split that submissions are
checked against; `board` adds and checks submissions, and `page` writes the page.
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
