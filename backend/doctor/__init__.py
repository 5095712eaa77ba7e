"""Checks an installation, for `flask doctor`. Skip it on a first reading."""

from ..subject import Subject
from . import commands

SUBJECT = Subject(name="doctor", commands=(commands.doctor,))
