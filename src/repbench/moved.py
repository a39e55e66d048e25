"""The names that modules and classes had before 0.2.0: importing one gives the new one and a DeprecationWarning.

`repbench` installs a finder for the old modules behind all others of Python, so it costs nothing until an old name is
imported. A package in the place of a module gets the names of the module from `moved_names`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = {
    "benchmark.baselines": "benchmark.scoring.baselines",
    "benchmark.batches": "benchmark.probing.batches",
    "benchmark.cache": "benchmark.features.maintenance",
    "benchmark.certificate": "benchmark.loading.certificates",
    "benchmark.controls": "benchmark.data.shuffled_labels",
    "benchmark.descent": "benchmark.probing.fused_adam",
    "benchmark.examiner": "benchmark.probing.prediction",
    "benchmark.extraction": "benchmark.features.export",
    "benchmark.features": "benchmark.features.extraction",
    "benchmark.finetune": "benchmark.pipeline.finetuned_run",
    "benchmark.finetuning": "benchmark.finetuning.trainer",
    "benchmark.identity": "benchmark.pipeline.existing_records",
    "benchmark.instants": "downstream.problems.scoring_grid",
    "benchmark.leaderboard.head": "benchmark.leaderboard.settings",
    "benchmark.loading": "benchmark.loading.upstreams",
    "benchmark.matrix": "benchmark.report.render.terminal_table",
    "benchmark.network": "benchmark.finetuning.network",
    "benchmark.owning": "locks",
    "benchmark.plan": "benchmark.data.dataset",
    "benchmark.precomputed": "benchmark.features.source",
    "benchmark.pretrain": "benchmark.pipeline.pretrain",
    "benchmark.probe": "benchmark.probing.probe",
    "benchmark.published": "benchmark.report.published",
    "benchmark.record": "benchmark.records.record",
    "benchmark.report.assemble": "benchmark.report.data.assemble",
    "benchmark.report.checking": "benchmark.report.data.checking",
    "benchmark.report.commands": "benchmark.report.render.commands",
    "benchmark.report.compare": "benchmark.report.data.compare",
    "benchmark.report.confusion": "benchmark.report.data.confusion",
    "benchmark.report.controls": "benchmark.report.data.controls",
    "benchmark.report.cost": "benchmark.report.data.cost",
    "benchmark.report.efficiency": "benchmark.report.data.efficiency",
    "benchmark.report.evidence": "benchmark.report.data.evidence",
    "benchmark.report.figures": "benchmark.report.render.figures",
    "benchmark.report.gather": "benchmark.report.data.gather",
    "benchmark.report.layers": "benchmark.report.data.layers",
    "benchmark.report.naming": "benchmark.report.render.escaping",
    "benchmark.report.numbers": "benchmark.records.formatting",
    "benchmark.report.questions": "benchmark.report.data.columns",
    "benchmark.report.reading": "benchmark.report.data.reading",
    "benchmark.report.render_csv": "benchmark.report.render.csv",
    "benchmark.report.render_html": "benchmark.report.render.html",
    "benchmark.report.render_json": "benchmark.report.render.json",
    "benchmark.report.render_md": "benchmark.report.render.markdown",
    "benchmark.report.render_tex": "benchmark.report.render.latex",
    "benchmark.report.sensitivity": "benchmark.report.data.sensitivity",
    "benchmark.report.svg": "benchmark.report.render.svg",
    "benchmark.report.tables": "benchmark.report.render.tables",
    "benchmark.report.writing": "benchmark.report.render.write",
    "benchmark.result": "benchmark.pipeline.write_record",
    "benchmark.room": "benchmark.features.allocation",
    "benchmark.saved_probe": "benchmark.pipeline.saved_probe_run",
    "benchmark.scoring": "benchmark.scoring.metrics",
    "benchmark.sequences": "downstream.problems.sequences",
    "benchmark.shards": "benchmark.features.shards",
    "benchmark.shuffling": "benchmark.data.seeded_shuffle",
    "benchmark.splits": "benchmark.data.splits",
    "benchmark.stage": "benchmark.pipeline.setup",
    "benchmark.statistics": "benchmark.scoring.statistics",
    "benchmark.statistics.aggregates": "benchmark.scoring.statistics.aggregates",
    "benchmark.statistics.intervals": "benchmark.scoring.statistics.intervals",
    "benchmark.statistics.labels": "benchmark.scoring.statistics.labels",
    "benchmark.statistics.significance": "benchmark.scoring.statistics.significance",
    "benchmark.store": "benchmark.features.store",
    "benchmark.sweep.look": "benchmark.sweep.inventory",
    "benchmark.table": "benchmark.records.table",
    "benchmark.tasks": "benchmark.loading.tasks",
    "benchmark.training": "benchmark.probing.training",
    "benchmark.trial": "benchmark.features.invariance_check",
    "benchmark.upstream_cost": "benchmark.features.cost",
    "benchmark.verify": "benchmark.records.verify",
    "corpora.alignments.books": "corpora.alignments.multi_utterance_files",
    "corpora.alignments.lists": "corpora.alignments.interval_files",
    "corpora.alignments.places": "corpora.alignments.lookup",
    "corpora.check": "corpora.audit.check",
    "corpora.csd": "corpora.layouts.csd",
    "corpora.features": "corpora.manifest.feature_column",
    "corpora.fsdd": "corpora.layouts.fsdd",
    "corpora.hdf5": "corpora.layouts.hdf5",
    "corpora.intake": "corpora.manifest.draft_checker",
    "corpora.json_table": "corpora.layouts.json_table",
    "corpora.kaldi": "corpora.layouts.kaldi",
    "corpora.librispeech": "corpora.layouts.librispeech",
    "corpora.lines": "corpora.manifest.lines",
    "corpora.ljspeech": "corpora.layouts.ljspeech",
    "corpora.mosi": "corpora.layouts.mosi",
    "corpora.opening": "corpora.open",
    "corpora.opinion": "corpora.layouts.sentiment_scales",
    "corpora.page": "corpora.audit.page",
    "corpora.pattern": "corpora.layouts.pattern",
    "corpora.phones": "corpora.phone_sets",
    "corpora.places": "corpora.safe_paths",
    "corpora.preparing": "corpora.manifest.prepare",
    "corpora.reading": "corpora.read",
    "corpora.rounded_ends": "corpora.layouts.rounded_ends",
    "corpora.sounds": "corpora.manifest.sound_notes",
    "corpora.subsets": "corpora.manifest.subsets",
    "corpora.synthetic.crew": "corpora.synthetic.worker_pool",
    "corpora.synthetic.recipe": "corpora.synthetic.conditions",
    "corpora.table": "corpora.layouts.csv_table",
    "corpora.timit": "corpora.layouts.timit",
    "corpora.voxceleb": "corpora.layouts.voxceleb",
    "upstream.batches": "training.batching",
    "upstream.bundles": "upstream.adapters.torchaudio_bundles",
    "upstream.checkpoints": "upstream.checkpoints.native",
    "upstream.conversion": "upstream.convert",
    "upstream.declared": "upstream.adapters.python_module",
    "upstream.feature_folder": "upstream.adapters.feature_folder",
    "upstream.foreign": "upstream.checkpoints.foreign",
    "upstream.frame_clocks": "upstream.adapters.frame_counts",
    "upstream.huggingface": "upstream.adapters.huggingface",
    "upstream.huggingface_files": "upstream.adapters.huggingface_files",
    "upstream.model_card": "upstream.checkpoints.model_card",
    "upstream.networks": "upstream.checkpoints.factory",
    "upstream.optimizers": "training.optimizers",
    "upstream.parallel": "training.distributed",
    "upstream.pickles": "upstream.checkpoints.safe_unpickle",
    "upstream.precomputed": "upstream.adapters.corpus_features",
    "upstream.pretraining": "upstream.pretraining.trainer",
    "upstream.sounds": "upstream.pretraining.inputs",
    "upstream.steps": "training.rng_and_signals",
    "upstream.training_log": "upstream.pretraining.log",
    "upstream.training_settings": "upstream.pretraining.settings",
}
"""From the old module to the new one, both below `repbench.`."""

NAMES = {
    ("audio.filterbanks", "MelBand"): "BankBlock",
    ("audio.griffinlim", "Linear"): "LinearTarget",
    ("audio.headers.header", "Held"): "SampleBytes",
    ("audio.legacy", "Shape"): "TransformShape",
    ("benchmark.data.dataset", "Plan"): "LabelledSplits",
    ("benchmark.data.dataset", "Question"): "LabelledUtterance",
    ("benchmark.data.dataset", "Questions"): "LabelledUtterances",
    ("benchmark.data.dataset", "SealedTest"): "HeldOutTest",
    ("benchmark.data.dataset", "make_plan"): "label_splits",
    ("benchmark.data.dataset", "plan_for_probe"): "splits_for_probe",
    ("benchmark.features.allocation", "room_for"): "allocate_table",
    ("benchmark.features.cost", "forget_costs"): "clear_costs",
    ("benchmark.features.extraction", "Outline"): "TableIndex",
    ("benchmark.features.extraction", "outline"): "table_index",
    ("benchmark.features.invariance_check", "try_together"): "check_invariance",
    ("benchmark.features.maintenance", "Holding"): "StoredFeatures",
    ("benchmark.features.maintenance", "holdings"): "stored_features",
    ("benchmark.demo", "Story"): "DemoResult",
    ("benchmark.features.shards", "Draft"): "UnwrittenLayer",
    ("benchmark.features.shards", "Entry"): "StoredLayer",
    ("benchmark.features.shards", "Origin"): "ShardOrigin",
    ("benchmark.features.shards", "Place"): "StoredKey",
    ("benchmark.features.shards", "standing"): "current_entries",
    ("benchmark.features.store", "Cell"): "UtteranceLayer",
    ("benchmark.features.store", "set_aside"): "discard",
    ("benchmark.leaderboard.settings", "Head"): "LeaderboardSettings",
    ("benchmark.leaderboard.settings", "Question"): "AcceptedTask",
    ("benchmark.leaderboard.settings", "question_of"): "accepted_task",
    ("benchmark.pipeline.setup", "Answered"): "TrainedResult",
    ("benchmark.pipeline.setup", "Labelled"): "LabelledSubset",
    ("benchmark.pipeline.setup", "Setting"): "RunSetting",
    ("benchmark.pipeline.setup", "Stage"): "RunContext",
    ("benchmark.pipeline.setup", "Written"): "WrittenRecord",
    ("benchmark.plots.canvas", "Subject"): "PictureSubject",
    ("benchmark.plots.plotting", "Kind"): "PictureKind",
    ("benchmark.probing.batches", "Batch"): "ProbeBatch",
    ("benchmark.probing.fused_adam", "Descent"): "FusedAdam",
    ("benchmark.probing.prediction", "Block"): "ScoringBlock",
    ("benchmark.probing.prediction", "Exam"): "DevSet",
    ("benchmark.probing.prediction", "Examiner"): "Predictor",
    ("benchmark.probing.prediction", "Examples"): "LabelledFeatures",
    ("benchmark.probing.training", "Lesson"): "ProbeJob",
    ("benchmark.records.verify", "Verdict"): "Verification",
    ("benchmark.report.data.assemble", "Verdict"): "BestOfColumn",
    ("benchmark.report.data.compare", "Overall"): "RowAggregates",
    ("benchmark.report.data.compare", "Together"): "GroupAggregates",
    ("benchmark.report.data.confusion", "Pair"): "ConfusedPair",
    ("benchmark.report.data.gather", "Row"): "ReportRow",
    ("benchmark.report.data.reading", "Found"): "RecomputedMetrics",
    ("benchmark.report.data.reading", "Loaded"): "LoadedRecords",
    ("benchmark.report.data.sensitivity", "Tried"): "TriedRates",
    ("benchmark.report.render.tables", "Table"): "PlainTable",
    ("benchmark.report.render.tables", "Value"): "PlainCell",
    ("benchmark.scoring.statistics.aggregates", "Table"): "TaskValues",
    ("benchmark.sweep.inventory", "Seen"): "PairInventory",
    ("benchmark.sweep.jobs", "Pair"): "RunCall",
    ("benchmark.sweep.plan", "AskedUpstream"): "PlannedUpstream",
    ("benchmark.sweep.sweep", "Row"): "PairSummary",
    ("corpora.alignments.lookup", "Folder"): "AlignmentFolder",
    ("corpora.alignments.lookup", "NamedFiles"): "FilePerUtterance",
    ("corpora.alignments.lookup", "Shelf"): "MultiUtteranceFiles",
    ("corpora.alignments.multi_utterance_files", "Book"): "MultiUtteranceFile",
    ("corpora.alignments.states", "Row"): "IntervalLine",
    ("corpora.alignments.textgrid", "Interval"): "TierInterval",
    ("corpora.audit.page", "Figure"): "AuditFigure",
    ("corpora.layouts.csd", "Interval"): "SequenceRow",
    ("corpora.layouts.csv_table", "Row"): "TableRow",
    ("corpora.layouts.csv_table", "Table"): "SourceTable",
    ("corpora.layouts.kaldi", "Entry"): "TableLine",
    ("corpora.layouts.mosi", "Opinion"): "LabelledSegment",
    ("corpora.layouts.mosi", "OpinionVideos"): "SentimentVideos",
    ("corpora.layouts.pattern", "Code"): "CodedField",
    ("corpora.layouts.pattern", "NamedFiles"): "PatternLayout",
    ("corpora.layouts.pattern", "Pattern"): "FilePattern",
    ("corpora.manifest.draft_checker", "Intake"): "DraftChecker",
    ("corpora.manifest.lines", "Line"): "ManifestLine",
    ("corpora.manifest.subsets", "Lists"): "SplitLists",
    ("corpora.manifest.subsets", "divided"): "with_splits",
    ("corpora.phone_sets", "STRANGER_SHARE"): "RARE_SHARE",
    ("corpora.phone_sets", "fault_of_words"): "fault_of_word_labels",
    ("corpora.phone_sets", "rare_strangers"): "rare_non_arpabet",
    ("corpora.safe_paths", "Root"): "RootFolder",
    ("corpora.synthetic.conditions", "Condition"): "RecordingCondition",
    ("corpora.synthetic.conditions", "Recipe"): "SyntheticSpec",
    ("corpora.synthetic.conditions", "Size"): "CorpusSize",
    ("downstream.phone", "Tally"): "PhoneTally",
    ("downstream.sentiment", "Tally"): "SentimentTally",
    ("locks", "owned"): "exclusive_lock",
    ("registry", "Found"): "FoundEntry",
    ("registry", "Loaded"): "LoadedEntry",
    ("upstream.adapters.huggingface", "HuggingFaceUpstream"): "SpeechEncoder",
    ("upstream.adapters.torchaudio_bundles", "BundleUpstream"): "SpeechEncoder",
    ("upstream.checkpoints.foreign", "Foreign"): "ForeignCheckpoint",
    ("upstream.mockingjay.model", "Head"): "ReconstructionHead",
    ("upstream.pretraining.inputs", "Fresh"): "FreshInputs",
    ("upstream.pretraining.inputs", "Kept"): "KeptFrames",
    ("upstream.pretraining.inputs", "Sounds"): "TrainingInputs",
    ("upstream.pretraining.trainer", "Stage"): "TrainingStage",
}
"""From a new module and the name that something had there to the name it has."""

_PACKAGES = {old.rpartition(".")[0] for old in MODULES} & set(MODULES)


class MovedFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the old modules; the last resort of an import, so what exists under a name always comes first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old module, None for every other."""
        package, _, old = fullname.partition(".")
        if package != "repbench" or old not in MODULES:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=old in _PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        """Give the old module the names of the new one."""
        new = MODULES[module.__name__.partition(".")[2]]
        what = f"`{module.__name__}` moved: import `repbench.{new}`"
        warnings.warn(what, DeprecationWarning, stacklevel=2)
        vars(module)["__getattr__"] = _names_from(module.__name__, new)


def install() -> None:
    """Put the finder behind all others, once."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())


def moved_names(package: str) -> Callable[[str], object]:
    """A `__getattr__` for a package in the place of a module: the names of that module, with a warning."""
    return _names_from(package, MODULES[package.partition(".")[2]], warn=True)


def _names_from(old: str, new: str, *, warn: bool = False) -> Callable[[str], object]:
    def found(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        now = NAMES.get((new, name), name)
        try:
            value = getattr(importlib.import_module(f"repbench.{new}"), now)
        except AttributeError:
            raise AttributeError(f"module {old!r} has no attribute {name!r}") from None
        if warn or now != name:
            warnings.warn(f"`{old}.{name}` moved: `repbench.{new}.{now}`", DeprecationWarning, stacklevel=2)
        return value

    return found
