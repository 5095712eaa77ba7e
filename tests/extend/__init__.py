"""A project that starts from this tree: everything on docs/extend.md, done literally."""
