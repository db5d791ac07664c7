"""The three tasks, each a Lightning module over one shared base."""

from truesweep.tasks.base import DivergedError, Recipe, Schedule, Task
from truesweep.tasks.classification import Classification
from truesweep.tasks.generation import context_length
from truesweep.tasks.lm import LanguageModeling
from truesweep.tasks.memory import OutOfMemory
from truesweep.tasks.translation import Translation

__all__ = [
    "Classification",
    "DivergedError",
    "LanguageModeling",
    "OutOfMemory",
    "Recipe",
    "Schedule",
    "Task",
    "Translation",
    "context_length",
]
