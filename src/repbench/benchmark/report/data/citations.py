"""What to cite for the numbers of a report: repbench, the models, the tasks that have a paper, and the corpora.

Models declare their publication and licence, and records keep both; newer records keep the licence of the corpus too.
Publications of corpora and tasks are those known here, by name: a corpus that was prepared under a name of its own has
none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from repbench.benchmark.report.data.gather import Gathered

Kind = Literal["software", "model", "task", "corpus"]

TITLE = "repbench: how good is a speech representation, for what, with how few labels, and is the difference real?"
AUTHORS = "The repbench authors"
LICENCE = "MIT"

UNKNOWN = "unknown"
"""What models and corpora declare that know no publication or licence."""

TASKS = {
    "abx": "Schatz et al., Evaluating speech features with the minimal-pair ABX task, Interspeech 2013",
    "intent": "Lugosch et al., Speech model pre-training for end-to-end spoken language understanding, "
    "Interspeech 2019",
    "query-by-example": "Yang et al., SUPERB: Speech processing universal performance benchmark, Interspeech 2021",
    "slots": "Yang et al., SUPERB: Speech processing universal performance benchmark, Interspeech 2021",
    "units": "Hsu et al., HuBERT, IEEE/ACM TASLP 29, 2021 (purities and PNMI)",
    "word-discrimination": "Carlin et al., Rapid evaluation of speech representations for spoken term discovery, "
    "Interspeech 2011",
}
"""Publications of the measures of tasks, by name."""

CORPORA = {
    "commonvoice": "Ardila et al., Common Voice: A massively-multilingual speech corpus, LREC 2020",
    "cremad": "Cao et al., CREMA-D: Crowd-sourced emotional multimodal actors dataset, IEEE TAC 5, 2014",
    "emodb": "Burkhardt et al., A database of German emotional speech, Interspeech 2005",
    "fleurs": "Conneau et al., FLEURS: Few-shot learning evaluation of universal representations of speech, SLT 2022",
    "fluent_speech_commands": "Lugosch et al., Speech model pre-training for end-to-end spoken language understanding, "
    "Interspeech 2019",
    "fsdd": "Jackson et al., Free Spoken Digit Dataset, 2018",
    "iemocap": "Busso et al., IEMOCAP: Interactive emotional dyadic motion capture database, LRE 42, 2008",
    "librimix": "Cosentino et al., LibriMix, arXiv:2005.11262, 2020",
    "librispeech": "Panayotov et al., Librispeech: An ASR corpus based on public domain audio books, ICASSP 2015",
    "ljspeech": "Ito and Johnson, The LJ Speech dataset, 2017",
    "mosei": "Zadeh et al., Multimodal language analysis in the wild: CMU-MOSEI, ACL 2018",
    "mosi": "Zadeh et al., MOSI: Multimodal corpus of sentiment intensity, arXiv:1606.06259, 2016",
    "ravdess": "Livingstone and Russo, The Ryerson audio-visual database of emotional speech and song, PLoS ONE 13, "
    "2018",
    "snips": "Lai et al., Semi-supervised spoken language understanding via self-supervised speech and language model "
    "pretraining, ICASSP 2021",
    "speech_commands": "Warden, Speech Commands: A dataset for limited-vocabulary speech recognition, "
    "arXiv:1804.03209, 2018",
    "timit": "Garofolo et al., TIMIT acoustic-phonetic continuous speech corpus, LDC93S1, 1993",
    "voxceleb": "Nagrani et al., VoxCeleb: A large-scale speaker identification dataset, Interspeech 2017",
    "voxlingua": "Valk and Alumäe, VoxLingua107: A dataset for spoken language recognition, SLT 2021",
}
"""Publications of corpora, by the name that their layout gives them."""


@dataclass(frozen=True, slots=True)
class Citation:
    """What to cite, and under which licence it is.

    Attributes:
        kind: Of what.
        name: As in the tables.
        publication: To be cited; None where none is known.
        licence: As declared; None where none is known.
    """

    kind: Kind
    name: str
    publication: str | None
    licence: str | None

    @property
    def line(self) -> str:
        """All of it in one line."""
        licence = "" if self.licence is None else f" (licence: {self.licence})"
        return f"{self.name}: {self.publication or 'no publication is known'}{licence}"


def citations(gathered: Gathered) -> list[Citation]:
    """What to cite for the rows and columns of a report, each once: repbench, models, tasks, corpora."""
    release = version("repbench")
    own = Citation("software", f"repbench {release}", f"{AUTHORS}, {TITLE}", LICENCE)
    found = [own, *_models(gathered), *_tasks(gathered), *_corpora(gathered)]
    return list(dict.fromkeys(found))


def _models(gathered: Gathered) -> Iterator[Citation]:
    for row in gathered.rows:
        # The same model trained and untrained is one publication.
        yield Citation("model", row.system.title, _known(row.system.citation), _known(row.system.licence))


def _tasks(gathered: Gathered) -> Iterator[Citation]:
    for task in dict.fromkeys(column.task for column in gathered.all_columns):
        if task in TASKS:
            yield Citation("task", task, TASKS[task], None)


def _corpora(gathered: Gathered) -> Iterator[Citation]:
    licences: dict[str, list[str]] = {}
    for column in gathered.all_columns:
        of_corpus = licences.setdefault(column.corpus, [])
        records = (run.record for cell in gathered.column_cells(column) for run in cell.runs)
        of_corpus += [record.corpus.licence for record in records if record.corpus.licence is not None]
    for name, several in licences.items():
        stated = _known("; ".join(dict.fromkeys(several)) or None)
        yield Citation("corpus", name, CORPORA.get(name), stated)


def _known(stated: str | None) -> str | None:
    return None if stated is None or stated.casefold() == UNKNOWN else stated
