"""The page at ``/``: one file without any outside resource."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files


@cache
def page() -> str:
    """The HTML document."""
    return files("stepcredit.serving").joinpath("page.html").read_text(encoding="utf-8")


def _hashes(tag: str) -> str:
    """Hashes of the page's inline scripts or styles, so that nothing else that is inline runs."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page(), flags=re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


CONTENT_POLICY = (
    f"default-src 'none'; connect-src 'self'; script-src {_hashes('script')}; style-src {_hashes('style')}; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
