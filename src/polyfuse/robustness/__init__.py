"""Robustness: how a model answers when its input is attacked."""

from __future__ import annotations

from polyfuse.robustness.attacking import attack_model, threats_of
from polyfuse.robustness.report import AttackReport, Budget

__all__ = ["AttackReport", "Budget", "attack_model", "threats_of"]
