"""One format a family: (prompt, steps) -> token ids and scored positions; trainers and scorers share it."""

from stepcredit.encoding.base import EncodedSteps, Encoding, EncodingError, read_positions
from stepcredit.encoding.chat import ChatEncoding
from stepcredit.encoding.concatenated import SkyworkPRMEncoding, StepwiseEncoding
from stepcredit.encoding.conversation import ConversationEncoding
from stepcredit.encoding.published import BestOfNEncoding, ProcessBenchEncoding
from stepcredit.encoding.tagged import MathShepherdEncoding, QwenPRMEncoding, RLHFlowEncoding

__all__ = [
    "BestOfNEncoding",
    "ChatEncoding",
    "ConversationEncoding",
    "EncodedSteps",
    "Encoding",
    "EncodingError",
    "MathShepherdEncoding",
    "ProcessBenchEncoding",
    "QwenPRMEncoding",
    "RLHFlowEncoding",
    "SkyworkPRMEncoding",
    "StepwiseEncoding",
    "read_positions",
]
