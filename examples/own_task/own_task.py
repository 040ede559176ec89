"""A task with rows of its own format: is a support ticket urgent? Each row has a subject, a body and a priority.

python -m rosa_bench -cd examples/own_task task=tickets data=local data.dir=examples/own_task/data method=lora
"""

from rosa_bench.core.fields import field, text_field
from rosa_bench.core.schema import configured
from rosa_bench.core.task import Example
from rosa_bench.errors import UsageError
from rosa_bench.tasks.glue import Glue


@configured
class Tickets(Glue):
    """Reads subject and body as one text, and the priority by name."""

    def parse(self, row, where):
        text = f"{text_field(row, 'subject', where)}: {text_field(row, 'body', where)}"
        return Example(str(field(row, "number", int, where)), (text,), self.label(row, where))

    def label(self, row, where):
        priority = text_field(row, "priority", where)
        if priority not in self.labels:
            raise UsageError(f"{where}: field 'priority' is {priority!r}, not one of {', '.join(self.labels)}")
        return self.labels.index(priority)
