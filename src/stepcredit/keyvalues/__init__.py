"""Keys and values of attention layers: a running batch, and sequences kept for what continues them."""

from stepcredit.keyvalues.rows import RowCache
from stepcredit.keyvalues.store import Held, PrefixStore

__all__ = ["Held", "PrefixStore", "RowCache"]
