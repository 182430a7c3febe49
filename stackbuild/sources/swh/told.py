"""What GH Archive tells of the repositories of an export, as phases of the walk.

events    a task for each day of hourly files: what it tells of each repository, by the repository's number
facts     by number: what all days tell, by each name that the repository bore
known     by name: the last visit under that name, with the facts of the repository that bore it then
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import pyarrow as pa

from stackbuild.sources.gharchive.events import ABOUT, FORKED, GATHERED, SEEN, gather
from stackbuild.sources.gharchive.facts import BUCKETED, FACTS, TOLD, facts, told_of_visits
from stackbuild.sources.gharchive.hours import HourFile, lines
from stackbuild.sources.swh.heads import CHOSEN
from stackbuild.sources.swh.partitions import BUCKET, BUCKET_FIELD, mine, write, write_by_repository
from stackbuild.sources.swh.session import rows_of, session
from stackbuild.sources.swh.visits import LAST, Selection, last_of
from stackbuild.tables import conform
from stackbuild.task import Task

KNOWN = pa.schema([*LAST, FACTS.field("default_branch"), *TOLD])


def read_day(task: Task, day: Sequence[HourFile], memory: int, compat: bool) -> None:
    """Read the hours of a day, and write SEEN, ABOUT and FORKED by partition of the repositories' numbers."""
    left_out: Counter[str] = Counter()
    with session(task.scratch, memory) as connection:
        read = gather(connection, chain.from_iterable(lines(hour, left_out) for hour in day), left_out, compat)
        for name, (query, schema) in GATHERED.items():
            grouped = pa.schema([BUCKET_FIELD, *schema])
            bucket = f"(github_id & {task.partitions - 1})::USMALLINT AS {BUCKET}"
            write(task, name, grouped, rows_of(connection, f"SELECT {bucket}, * FROM ({query}) ORDER BY ALL", grouped))
    task.stats.update(rows_in=read, hours=len(day), left_out=dict(sorted(left_out.items())))


def gather_facts(task: Task, memory: int, compat: bool) -> None:
    """Write the FACTS of a partition of numbers by partition of their names."""
    with session(task.scratch, memory) as connection:
        tables = {
            name: mine(task, name, schema) for name, schema in (("seen", SEEN), ("about", ABOUT), ("forked", FORKED))
        }
        write(task, "facts", BUCKETED, facts(connection, tables, task.partitions, compat))


def know_visits(task: Task, selection: Selection, memory: int) -> None:
    """Write the last visit under each name of a partition, with what is known of its repository, as rows of KNOWN by repository."""
    visits = last_of(
        [LAST.empty_table(), pa.Table.from_batches(task.read("visits", None, task.rank, BUCKET), LAST)], selection
    ).drop_columns([BUCKET])
    with session(task.scratch, memory) as connection:
        known = told_of_visits(connection, visits, mine(task, "facts", FACTS), selection.compat)
    write_by_repository(task, "known", pa.schema(list(KNOWN)[1:]), known)


def taken_of(found: pa.Table) -> pa.Table:
    """Rows of LAST or KNOWN with the columns of CHOSEN and TOLD, null where nobody was asked."""
    schema = pa.schema([*CHOSEN, *TOLD])
    return pa.Table.from_batches([conform(batch, schema) for batch in found.to_batches()], schema)
