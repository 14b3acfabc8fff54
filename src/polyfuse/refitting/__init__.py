"""A model that is fitted further as the world goes on, and takes its place only where it is better."""

from polyfuse.refitting.comparison import Side, compare, verdict
from polyfuse.refitting.further import fit_further, passed_on
from polyfuse.refitting.portions import Portions, divide
from polyfuse.refitting.report import Refitted

__all__ = ["Portions", "Refitted", "Side", "compare", "divide", "fit_further", "passed_on", "verdict"]
