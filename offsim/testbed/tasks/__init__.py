"""The tasks of the embedded model: one file and one class a task, listed here and nowhere else."""

from offsim.testbed.tasks.add import Add
from offsim.testbed.tasks.base import Item, Task, is_held_out, sample
from offsim.testbed.tasks.chain import Chain
from offsim.testbed.tasks.copying import Copy
from offsim.testbed.tasks.facts import Facts
from offsim.testbed.tasks.long_chain import LongChain
from offsim.testbed.tasks.recall import Recall
from offsim.testbed.tasks.reverse import Reverse
from offsim.testbed.tasks.sort import Sort
from offsim.testbed.tasks.sub import Sub
from offsim.testbed.tasks.upper import Upper
from offsim.testbed.tasks.word import Word

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Add(),
        Sub(),
        Chain(),
        Word(),
        Copy(),
        Reverse(),
        Sort(),
        Upper(),
        Recall(),
        Facts(),
        LongChain(),
    )
}

__all__ = ["TASKS", "Item", "Task", "is_held_out", "sample"]
