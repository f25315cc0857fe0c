"""What is asked about a table of drives; DuckDB answers."""

from __future__ import annotations

from typing import Any

import duckdb

from framegate.evaluation.drives.table import DriveTable

Rows = list[tuple[Any, ...]]


class Questions:
    """Asks DuckDB about a table.

    Args:
        table: The drives.
    """

    def __init__(self, table: DriveTable) -> None:
        self._connection = duckdb.connect()
        self._connection.execute(
            f"create view drives as select * from {table.sql_source()} where frame_id is not null and not scene"
        )

    def ask(self, query: str) -> Rows:
        """The rows of an answer."""
        return self._connection.execute(query).fetchall()

    def per(self, name: str) -> Rows:
        """Value of a column, drive, verdicts, accepted, labelled and accepted, wrong and accepted."""
        return self.ask(
            f"""select {name}, drive, count(*), count(*) filter (accepted),
                count(*) filter (accepted and label is not null),
                count(*) filter (accepted and label is not null and label <> candidate)
            from drives group by all order by all"""
        )
