"""rensa: R-MinHash of 250 permutations made in batches, its LSH of 25 bands; files that a query finds are joined."""

import files
from rensa import RMinHash, RMinHashLSH

BATCH = 256  # files whose shingles are in memory at a time


def work(folder, out, workers):
    slots = files.BANDS * files.ROWS
    lsh = RMinHashLSH(threshold=files.THRESHOLD, num_perm=slots, num_bands=files.BANDS)
    tables = [files.read(path) for path in files.inputs(folder)]
    groups = files.Groups(sum(table.num_rows for table in tables))
    first = 0
    for table in tables:
        for start in range(0, table.num_rows, BATCH):
            sets = [files.shingles(text) for text in table["text"].slice(start, BATCH).to_pylist()]
            rows = [first + start + i for i, shingles in enumerate(sets) if shingles]
            sketches = RMinHash.from_token_sets([shingles for shingles in sets if shingles], slots, 42)
            for row, sketch in zip(rows, sketches, strict=True):
                groups.join(row, lsh.query(sketch))
                lsh.insert(row, sketch)
        first += table.num_rows
    files.write_kept(folder, out, groups)


if __name__ == "__main__":
    files.main(work)
