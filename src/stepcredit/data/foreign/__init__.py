"""The formats of other tools: each is a reader of rows, and where it can be written, a writer."""

from stepcredit.data.foreign.registry import FORMATS, ROLLOUT_FORMATS, ForeignFormat, Reader, named_format

__all__ = ["FORMATS", "ROLLOUT_FORMATS", "ForeignFormat", "Reader", "named_format"]
