"""Checks of an installation, for `flask doctor`. Skip it on a first reading."""
