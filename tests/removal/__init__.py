"""Each subject that is not part of the core, taken out of a copy of the tree."""
