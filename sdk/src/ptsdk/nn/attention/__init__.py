"""The seam where queries meet keys. A block projects and rotates; an ``Attend`` does the rest.

Shapes: N tokens of B documents laid end to end, H query heads, K key/value heads, E head size.
"""

from __future__ import annotations

from ptsdk.nn.attention.documents import Documents
from ptsdk.nn.attention.seam import Attend, Backend

__all__ = ["Attend", "Backend", "Documents"]
