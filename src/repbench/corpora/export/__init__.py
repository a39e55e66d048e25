"""Writing a corpus in the formats of other tools: lhotse, `datasets` of Hugging Face, Kaldi."""

from repbench.corpora.export.exporting import KINDS, ExportedCorpus, export

__all__ = ["KINDS", "ExportedCorpus", "export"]
