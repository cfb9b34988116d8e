"""How much memory a Parquet file of pictures takes while it is fingerprinted and checked.

Writes a file in one row group, as pandas does, or in groups of ``--group`` pictures, and does to
it what the flow's process (fingerprint) and ``prepare`` (checks) do. Prints by how much each raised
the peak of the process.

    python benchmarks/flat_memory.py --megabytes 600 --group 100
"""

import argparse
import io
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlm_ops.config.sections import FilesData
from vlm_ops.data.check import check_rows
from vlm_ops.data.images import ImageStore
from vlm_ops.data.rows import Complaints
from vlm_ops.data.sources import open_source, source_content


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--megabytes", type=int, default=300, help="size of the file")
    parser.add_argument("--group", type=int, help="pictures of a row group; all unless set")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        with ProcessPoolExecutor(max_workers=1) as other:  # its memory is not counted
            count = other.submit(write, path, asked.megabytes << 20, asked.group).result()
        print(f"{count} pictures, {path.stat().st_size / 2**20:.0f} MiB")
        data = FilesData(type="files", path=path)
        warm(Path(folder))
        before, started = peak(), time.monotonic()
        source_content(data)
        print(f"fingerprint: +{peak() - before:.0f} MiB, {time.monotonic() - started:.1f} s")
        before, started = peak(), time.monotonic()
        with ImageStore(Path(folder) / "step") as store:
            source = open_source(data, seed=0, cache=Path(folder) / "cache")
            found = Complaints()
            checked = sum(1 for _ in check_rows(source.rows, store, found))
        assert checked == count, found.lines()
        print(f"checks: +{peak() - before:.0f} MiB, {time.monotonic() - started:.1f} s")


def write(path: Path, size: int, group: int | None = None) -> int:
    """Write pictures of about 400 kB until there are ``size`` bytes; return how many."""
    buffer = io.BytesIO()
    Image.effect_noise((1000, 800), 60).convert("RGB").save(buffer, "JPEG", quality=92)
    picture = buffer.getvalue()
    count = max(1, size // len(picture))
    # A few bytes after a JPEG's end make it another file of the same picture.
    cells = [{"bytes": picture + n.to_bytes(4, "big"), "path": f"{n}.jpg"} for n in range(count)]
    table = pa.table({"image": cells, "query": ["q"] * count, "label": ["a"] * count})
    pq.write_table(table, path, row_group_size=group or count)
    return count


def warm(folder: Path) -> None:
    """Let the libraries that are imported on first use be in memory already."""
    (folder / "small").mkdir()
    write(folder / "small" / "rows.parquet", 1)
    data = FilesData(type="files", path=folder / "small" / "rows.parquet")
    source_content(data)
    with ImageStore(folder / "small" / "step") as store:
        source = open_source(data, seed=0, cache=folder / "small" / "cache")
        list(check_rows(source.rows, store, Complaints()))


def peak() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
