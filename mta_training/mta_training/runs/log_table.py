"""log.csv of a run: a line each so many steps, gone on with where a killed run goes on."""

import csv

import numpy as np

from mta_perception.atomic_files import whole

EVERY = 20  # steps a line


class LogTable:
    """Means of the values since the last line; of `counted` ones the last."""

    def __init__(self, path, columns, counted, resume_at=0):
        """columns: names in order, `step` among them; resume_at: the step that is done."""
        self.path, self.columns, self.counted, self.rows = path, columns, counted, []
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if resume_at and path.exists():
            with open(path, newline='') as file:
                # The last line may be cut, where a disk was full.
                rows = [row for row in csv.DictReader(file) if None not in row.values()]
                # What a killed run made after its last checkpoint is made again.
                kept = [row for row in rows if int(row['step']) <= resume_at]
        with whole(path) as partial, open(partial, 'w', newline='') as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(kept)

    def add(self, values):
        """Values of one step, with its number as `step`; unknown names are left out."""
        self.rows.append(values)
        if values['step'] % EVERY == 0:
            self.flush()

    def flush(self):
        """Write the line of what came since the last one."""
        if not self.rows:
            return
        means = {}
        for name in self.columns:
            values = [row[name] for row in self.rows if name in row]
            if values:
                means[name] = values[-1] if name in self.counted else float(np.mean(values))
        self.rows = []
        self.write(means)

    def write(self, values):
        """A line of its own."""
        with open(self.path, 'a', newline='') as file:
            csv.DictWriter(file, self.columns).writerow(
                {name: f'{value:.9g}' for name, value in values.items()}
            )
