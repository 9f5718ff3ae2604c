"""Talking to servers of models: requests that are tried again, within a time, and say what they wait for."""

from stepcredit.servers.exchange import Exchange
from stepcredit.servers.inquiry import Inquiry
from stepcredit.servers.server import (
    RefusedError,
    Server,
    ServerError,
    ServerLimits,
    UnreachableError,
    UnreadableAnswerError,
)

__all__ = [
    "Exchange",
    "Inquiry",
    "RefusedError",
    "Server",
    "ServerError",
    "ServerLimits",
    "UnreachableError",
    "UnreadableAnswerError",
]
