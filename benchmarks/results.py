"""What a run of the benchmark found, as a dictionary for machines and back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import busy
from .rounds import Row
from .workloads import PARTS, SIDES, WORKLOADS


@dataclass
class Results:
    """`rows`: those of the table; `scaling`: for each axis, sizes and their rows; `busy`: rows beside a busy process.

    `more`: cold starts, peak memory and the races of lenet-to-99, as dictionaries.
    """

    date: str
    machine: dict
    rows: list[Row]
    scaling: dict[str, list[tuple[int, Row]]] = field(default_factory=dict)
    busy: list[Row] = field(default_factory=list)
    more: dict = field(default_factory=dict)

    def __iter__(self) -> Iterator[Row]:
        yield from self.rows
        yield from (row for line in self.scaling.values() for _, row in line)
        yield from self.busy

    def as_dict(self) -> dict:
        return {
            "date": self.date,
            **self.machine,
            "rows": [row_dict(row) for row in self.rows],
            "scaling": {
                axis: [{"size": size, **row_dict(row)} for size, row in line] for axis, line in self.scaling.items()
            },
            "busy": [busy_dict(row) for row in self.busy],
            **self.more,
        }

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1) + "\n"

    @classmethod
    def from_dict(cls, found: dict) -> "Results":
        """The rows whose names the benchmark still has."""

        def rows(lines: list[dict]) -> list[Row]:
            return [
                Row(line["name"], line["rounds"], line["disturbed"], line["notes"])
                for line in lines
                if line["name"] in WORKLOADS
            ]

        scaling = {
            axis: [(line["size"], row) for line in lines for row in rows([line])]
            for axis, lines in found["scaling"].items()
        }
        known = {"date", "machine", "versions", "rows", "scaling", "busy"}
        return cls(
            found["date"],
            {"machine": found["machine"], "versions": found["versions"]},
            rows(found["rows"]),
            scaling,
            rows(found.get("busy", [])),
            {key: value for key, value in found.items() if key not in known},
        )


def row_dict(row: Row) -> dict:
    workload = WORKLOADS[row.name]
    others = [side for side in SIDES if side not in ("ours", *PARTS)]
    return {
        "name": row.name,
        "title": workload.title,
        "goals": workload.goals,
        **times_dict(row),
        "ratio": {side: row.ratio(side) for side in others if side in workload.sides},
    }


def busy_dict(row: Row) -> dict:
    keys = [(side, place) for side in busy.SIDES for place in busy.PLACES]
    return {
        "name": row.name,
        "title": WORKLOADS[row.name].title,
        **times_dict(row),
        "ratio_to_better": {f"{side} {place}": busy.ratio_to_better(row, side, place) for side, place in keys},
    }


def times_dict(row: Row) -> dict:
    return {
        "notes": row.notes,
        "seconds": {key: row.time(key) for key in row.times},
        "spread": {key: row.spread(key) for key in row.times},
        "rounds": row.times,
        "disturbed": row.disturbed,
    }
