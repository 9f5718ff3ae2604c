"""One format a family: (prompt, steps) -> token ids and scored positions; trainers and scorers share it."""

from stepcredit.encoding.base import EncodedSteps, Encoding, EncodingError
from stepcredit.encoding.chat import ChatEncoding

__all__ = ["ChatEncoding", "EncodedSteps", "Encoding", "EncodingError"]
