"""Reading, column kinds and schema of a generated table, beside plain `pandas.read_csv`.

Each run is a process of its own, so that the peak memory is that of the run. pandas only parses: dates and codes stay text there.

    python benchmarks/reading.py                    1 million rows, 30 mixed columns
    python benchmarks/reading.py --rows 100000 --repeat 5
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from common import options

START = "import json, resource, sys, time\n"
MEMORY = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)"
RUNS = {
    "pandas.read_csv": """
        import pandas
        begin, cpu = time.perf_counter(), time.process_time()
        frame = pandas.read_csv(sys.argv[1])
        read = time.perf_counter() - begin
    """,
    "mlbench read_table": """
        import pandas, pyarrow.csv
        from mlbench.data.sources import read_table
        begin, cpu = time.perf_counter(), time.process_time()
        frame = read_table(sys.argv[1]).frame
        read = time.perf_counter() - begin
    """,
    "mlbench read_table + infer_schema": """
        import pandas, pyarrow.csv
        from mlbench.data.sources import read_table
        from mlbench.data.schema import infer_schema
        begin, cpu = time.perf_counter(), time.process_time()
        frame = read_table(sys.argv[1]).frame
        read = time.perf_counter() - begin
        schema = infer_schema(frame)
    """,
}
END = "print(json.dumps({'seconds': time.perf_counter() - begin, 'cpu': time.process_time() - cpu, 'mb': MEMORY, 'shape': list(frame.shape)}))"


def mixed_table(rows: int, path: Path) -> None:
    "Write a table with numbers, missing cells, categories, dates of two forms, codes, identifiers, flags and short texts."
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    rng = np.random.default_rng(0)
    words = np.array(["red", "green", "blue", "amber", "slate", "ivory", "coral", "olive", "navy", "teal"])
    columns = {f"measure_{k}": pa.array(rng.normal(50, 20, rows).round(4)) for k in range(7)}
    columns |= {f"count_{k}": pa.array(rng.integers(0, 10 ** (k + 1), rows)) for k in range(4)}
    columns |= {f"group_{k}": pa.array(np.array([f"level {i}" for i in range(3 * 4**k)]).take(rng.integers(0, 3 * 4**k, rows))) for k in range(5)}
    for k in range(2):
        columns[f"gaps_{k}"] = pa.array(rng.normal(0, 1, rows).round(3), mask=rng.random(rows) < 0.1 * (k + 1))
    columns["marked"] = pc.if_else(pa.array(rng.random(rows) < 0.05), "NA", pa.array(rng.integers(0, 90, rows)).cast(pa.string()))
    columns["flag"] = pa.array(np.array(["yes", "no"]).take(rng.integers(0, 2, rows)))
    columns["truth"] = pa.array(rng.random(rows) < 0.5)
    days = np.datetime64("2018-01-01") + rng.integers(0, 2_000, rows).astype("timedelta64[D]")
    columns["day"] = pa.array(days)
    columns["moment"] = pa.array(days.astype("datetime64[s]") + rng.integers(0, 86_400, rows).astype("timedelta64[s]"))
    columns["european_day"] = pc.strftime(pa.array(days), format="%d.%m.%Y")
    columns["zip"] = pa.array(np.char.zfill(rng.integers(0, 99_999, rows).astype(str), 5))
    columns["customer"] = pa.array([f"C-{k:08d}" for k in rng.permutation(rows)])
    columns["row"] = pa.array(np.arange(rows))
    columns["note"] = pc.binary_join_element_wise(*[pa.array(words.take(rng.integers(0, 10, rows))) for _ in range(4)], " ")
    columns["amount"] = pa.array(rng.lognormal(3, 1, rows).round(2))
    columns["label"] = pa.array(np.array(["stays", "leaves"]).take((rng.random(rows) < 0.2).astype(int)))
    table = pa.table(columns)
    assert table.num_columns == 30
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="needed"))


def measure(code: str, path: Path) -> dict[str, float]:
    "Run one reader in a fresh process."
    program = START + textwrap.dedent(code) + END.replace("MEMORY", MEMORY)
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    "Measure all readers in turn, and print the best run of each."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=options.whole("the rows of a table", 1, 1_000_000), default=1_000_000, help="rows of the table")
    parser.add_argument("--repeat", type=options.whole("a number of runs", 1, 3), default=3, help="runs of each reader; the fastest counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixed.csv"
        mixed_table(args.rows, path)
        print(f"{args.rows:,} rows, 30 mixed columns, {path.stat().st_size / 1e6:,.0f} MB of text; best of {args.repeat}")
        found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
        for _ in range(args.repeat):  # in turn, so that a busy moment of the machine meets all of them
            for name, code in RUNS.items():
                found[name].append(measure(code, path))
    best = {name: {key: min(run[key] for run in runs) for key in ("seconds", "cpu", "mb")} for name, runs in found.items()}
    base = best["pandas.read_csv"]
    print(f"{'':34}  seconds   ratio   CPU s   ratio   peak MB   ratio")
    for name, b in best.items():
        ratios = {key: b[key] / base[key] for key in b}
        print(f"{name:34}  {b['seconds']:7.2f}  {ratios['seconds']:6.2f}  {b['cpu']:6.2f}  {ratios['cpu']:6.2f}  {b['mb']:8.0f}  {ratios['mb']:6.2f}")


if __name__ == "__main__":
    main()
