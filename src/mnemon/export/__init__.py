"""Concepts to and from the files that other tools read."""

from mnemon.export.exporting import ExportResult, export
from mnemon.export.factors import RankSelection
from mnemon.export.hub import push
from mnemon.export.importing import ImportedAdapter, as_concept, read_adapter
from mnemon.export.naming import KINDS

__all__ = ["KINDS", "ExportResult", "ImportedAdapter", "RankSelection", "as_concept", "export", "push", "read_adapter"]
