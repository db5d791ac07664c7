"""The tasks, each a Lightning module over one shared base."""

from truesweep.models import Head
from truesweep.tasks.base import Task
from truesweep.tasks.classification import Classification
from truesweep.tasks.devices import OutOfMemory
from truesweep.tasks.lm import LanguageModeling
from truesweep.tasks.mlm import MaskedLanguageModeling
from truesweep.tasks.training import DivergedError, Recipe, Schedule
from truesweep.tasks.translation import Translation


def task_of(head: Head) -> type[Task]:
    """The task that answers for a model of which nothing but its head is known."""
    return next(
        t
        for t in (LanguageModeling, MaskedLanguageModeling, Translation, Classification)
        if t.head == head
    )


__all__ = [
    "Classification",
    "DivergedError",
    "LanguageModeling",
    "MaskedLanguageModeling",
    "OutOfMemory",
    "Recipe",
    "Schedule",
    "Task",
    "Translation",
    "task_of",
]
