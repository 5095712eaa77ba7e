"""Faults: what holds while parts die, measured."""
