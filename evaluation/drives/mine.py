"""Which recorded frames are most worth a label.

Each verdict gets a worth, the sum of the criteria that were asked for, each in [0, 1]:

    near       1 - |score - threshold| / (NEAR |threshold|), 0 where that is negative
    disagree   1 if detector and classifier contradict each other (NO_AGREEMENT)
    changed    1 if the verdict before or after in the same stream has the other outcome, or the other label
    rare       how seldom its label, reasons and region come together: log of the share, 1 for the rarest

Frames of one scene are worth little together. So they are chosen one after the other: the next is the one with the
largest worth x distance to the nearest that was chosen (greedy k-center, Sener and Savarese 2018, with a weight), where

    distance = d / (1 + d) + scene,   d = distance of the standardised scores and signals, per dimension
    scene    = seconds apart / SCENE_S, at most 1; 1 for another drive or camera

Only frames whose full picture was kept can be chosen, and only ones without a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from framegate.evaluation.drives.table import VALUES, DriveTable
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.sinks.events import SAMPLE

NEAR_THRESHOLD, DISAGREE, CHANGED, RARE = "near", "disagree", "changed", "rare"
CRITERIA = (NEAR_THRESHOLD, DISAGREE, CHANGED, RARE)
RANDOM = "random"
"""Why a frame was chosen that was drawn."""
NEAR = 0.5
SCENE_S = 30.0
POOL = 20
"""So many times the budget are compared with each other; the others are worth less."""
Floats = npt.NDArray[np.float64]

# A drive goes on in its next file, whose number is larger; after a restart its monotonic clock may begin anew.
_WORTH = f"""
    with streams as (
        select *,
            lag(accepted) over stream as was, lead(accepted) over stream as becomes,
            lag(candidate) over stream as was_label, lead(candidate) over stream as becomes_label,
            count(*) over (partition by candidate, reasons, region) as alike,
            count(*) over () as total,
            row_number() over (order by drive, camera, region, length(file), file, captured_ns, frame_id) as place
        from drives where frame_id is not null
        window stream as (partition by drive, camera, region order by length(file), file, captured_ns, frame_id)),
    judged as (
        select *,
            coalesce(greatest(0, 1 - abs(score - threshold) / ({NEAR} * abs(threshold))), 0) as near,
            list_contains(string_split(reasons, ' '), 'NO_AGREEMENT')::double as disagree,
            (was <> accepted or becomes <> accepted
                or (accepted and (was_label <> candidate or becomes_label <> candidate))) as flips,
            case when total > 1 then 1 - ln(alike) / ln(total) else 1 end as rare
        from streams where picture and label is null and candidate is not null)
"""


@dataclass(frozen=True)
class Mined:
    """What was chosen.

    Attributes:
        rows: Chosen verdicts, the first chosen first, with the columns of the table and ``worth`` and ``why``.
        unseen: Verdicts that are worth something but have no picture.
    """

    rows: pa.Table
    unseen: int


def mine(table: DriveTable, criteria: Sequence[str], budget: int) -> Mined:
    """Choose the verdicts to be labelled.

    Args:
        table: The drives.
        criteria: Of `CRITERIA`.
        budget: How many, at most.

    Raises:
        UsageError: The budget is no number of frames.
        DataError: No frame has a picture.
    """
    if budget < 1:
        raise UsageError(f"--budget {budget}: expected 1 or more")
    expressions = {name: name for name in CRITERIA} | {CHANGED: "coalesce(flips, false)::double"}
    asked = ", ".join(f"{expressions[name]} as {name}_worth" for name in criteria)
    total = " + ".join(f"{expressions[name]}" for name in criteria)
    with duckdb.connect() as connection:
        connection.execute(f"create view drives as select * from {table.sql_source()}")
        pool = connection.sql(
            f"""{_WORTH} select * exclude (near, disagree, flips, rare, was, becomes, was_label, becomes_label, alike,
                total), {asked}, {total} as worth
            from judged where {total} > 0 order by worth desc, place limit {budget * POOL}"""
        ).to_arrow_table()
        without = connection.execute(
            "select count(*), count(*) filter (picture) from drives where frame_id is not null"
        ).fetchone()
    if without is None or not without[1]:
        raise DataError(
            f"{table.path}: no verdict has a full picture, so there is nothing to label; record with --black-box and "
            "without --pictures none"
        )
    if not pool.num_rows:
        return Mined(pool, 0)
    worth = pool["worth"].to_numpy()
    chosen = choose(worth, _features(pool, table.signals), _streams(pool), _seconds(pool), budget)
    taken = pool.take(pa.array(chosen))
    why = [
        " ".join(name for name in criteria if row[f"{name}_worth"] > 0.25)
        for row in taken.select([f"{name}_worth" for name in criteria]).to_pylist()
    ]
    return Mined(taken.append_column("why", pa.array(why, pa.string())), int(without[0] - without[1]))


def draw(table: DriveTable, budget: int) -> Mined:
    """Choose verdicts at random among those whose picture was kept because its time had come: what a promise needs.

    Args:
        table: The drives.
        budget: How many, at most. The same table gives the same ones.

    Raises:
        UsageError: The budget is no number of frames.
        DataError: There are none.
    """
    if budget < 1:
        raise UsageError(f"--budget {budget}: expected 1 or more")
    with duckdb.connect() as connection:
        connection.execute(f"create view drives as select * from {table.sql_source()}")
        rows = connection.sql(
            f"""select *, 1.0 as worth, '{RANDOM}' as why from drives
            where picture and label is null and candidate is not null
                and list_contains(string_split(events, ' '), '{SAMPLE}')
            order by md5(concat_ws(' ', drive, camera, region, frame_id)), drive, camera, region, frame_id,
                length(file), file
            limit {budget}"""
        ).to_arrow_table()
    if not rows.num_rows:
        raise DataError(
            f"{table.path}: no unlabelled picture was kept for its time alone; a black box keeps one every ten seconds"
        )
    return Mined(rows, 0)


def choose(worth: Floats, features: Floats, streams: npt.NDArray[np.int64], seconds: Floats, budget: int) -> list[int]:
    """The greedy choice, see the module; ties go to the earlier row.

    Args:
        worth: (n,) at least 0.
        features: (n, k) standardised.
        streams: (n,) number of the drive and camera.
        seconds: (n,) time of each.
        budget: At most so many.
    """
    nearest = np.full(len(worth), 2.0)
    left = np.ones(len(worth), bool)
    found: list[int] = []
    for _ in range(min(budget, len(worth))):
        gain = np.where(left, worth * nearest, -1.0)
        best = int(gain.argmax())
        found.append(best)
        left[best] = False
        apart = np.sqrt(((features - features[best]) ** 2).mean(axis=1)) if features.shape[1] else np.zeros(len(worth))
        scene = np.where(streams == streams[best], np.minimum(np.abs(seconds - seconds[best]) / SCENE_S, 1.0), 1.0)
        nearest = np.minimum(nearest, apart / (1.0 + apart) + scene)
    return found


def _features(pool: pa.Table, signals: Sequence[str]) -> Floats:
    columns = []
    for name in (*VALUES, *signals):
        values = np.array(pool[name].to_numpy(zero_copy_only=False), np.float64)
        finite = np.isfinite(values)
        if not finite.any():
            continue
        spread = values[finite].std()
        if spread > 0:
            columns.append(np.where(finite, (values - values[finite].mean()) / spread, 0.0))
    return np.stack(columns, axis=1) if columns else np.zeros((pool.num_rows, 0))


def _streams(pool: pa.Table) -> npt.NDArray[np.int64]:
    names = [
        f"{drive}\n{camera}" for drive, camera in zip(*(pool[c].to_pylist() for c in ("drive", "camera")), strict=True)
    ]
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)


def _seconds(pool: pa.Table) -> Floats:
    return np.asarray(pool["captured_ns"].to_numpy() / 1e9, np.float64)
