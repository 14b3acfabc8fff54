"""What a model leaves to the one after it: some of its rows, and where it comes from."""

from polyfuse.lineage.ancestry import Ancestor, Lineage, Reference, identity, load_lineage
from polyfuse.lineage.keeping import kept_table, load_kept, save_kept
from polyfuse.lineage.kept import Kept, Offered, Part, keep

__all__ = [
    "Ancestor",
    "Kept",
    "Lineage",
    "Offered",
    "Part",
    "Reference",
    "identity",
    "keep",
    "kept_table",
    "load_kept",
    "load_lineage",
    "save_kept",
]
