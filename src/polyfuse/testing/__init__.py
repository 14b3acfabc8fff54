"""Checks of the contract between the parts, for every component here and for those of third parties.

Each raises AssertionError with what was found and what the contract says.
"""

from __future__ import annotations

from polyfuse.testing.encoders import check_encoder
from polyfuse.testing.fusions import check_fusion
from polyfuse.testing.heads import check_head
from polyfuse.testing.tunings import check_tuning

__all__ = ["check_encoder", "check_fusion", "check_head", "check_tuning"]
