"""Robustness: how a model answers when its input is attacked, damaged, or not all there, and what is certain of it."""

from __future__ import annotations

from polyfuse.robustness.attacking import attack_model, threats_of
from polyfuse.robustness.detection import DetectionReport, detect
from polyfuse.robustness.report import AttackReport, Budget
from polyfuse.robustness.smoothing import CertificateReport, Smoothing, certify_model
from polyfuse.robustness.stress import StressReport, stress

__all__ = [
    "AttackReport",
    "Budget",
    "CertificateReport",
    "DetectionReport",
    "Smoothing",
    "StressReport",
    "attack_model",
    "certify_model",
    "detect",
    "stress",
    "threats_of",
]
