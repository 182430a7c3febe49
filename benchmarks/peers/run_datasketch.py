"""datasketch: MinHash of 250 permutations, 25 bands of 10; files that a query finds are joined."""

import files
from datasketch import MinHash, MinHashLSH


def work(folder, out, workers):
    slots = files.BANDS * files.ROWS
    lsh = MinHashLSH(files.THRESHOLD, slots, params=(files.BANDS, files.ROWS))
    tables = [files.read(path) for path in files.inputs(folder)]
    groups = files.Groups(sum(table.num_rows for table in tables))
    row = 0
    for table in tables:
        for text in table["text"].to_pylist():
            shingles = files.shingles(text)
            if shingles:
                sketch = MinHash(slots)
                sketch.update_batch([shingle.encode() for shingle in shingles])
                groups.join(row, lsh.query(sketch))
                lsh.insert(row, sketch)
            row += 1
    files.write_kept(folder, out, groups)


if __name__ == "__main__":
    files.main(work)
