"""gaoya: its own words and 5-grams in Rust, 25 bands of 10; files whose estimated similarity reaches 0.7 are joined."""

import files
from gaoya.minhash import MinHashStringIndex

BATCH = 1000  # files in a call


def work(folder, out, workers):
    index = MinHashStringIndex(
        hash_size=32, jaccard_threshold=files.THRESHOLD, num_bands=files.BANDS, band_size=files.ROWS,
        analyzer="word", lowercase=True, ngram_range=(files.NGRAM, files.NGRAM),
    )  # fmt: skip
    tables = [files.read(path) for path in files.inputs(folder)]
    groups = files.Groups(sum(table.num_rows for table in tables))

    def batches():
        row = 0
        for table in tables:
            for start in range(0, table.num_rows, BATCH):
                texts = table["text"].slice(start, BATCH).to_pylist()
                yield row, texts
                row += len(texts)

    for row, texts in batches():
        index.par_bulk_insert_docs(list(range(row, row + len(texts))), texts)
    for row, texts in batches():
        for i, found in enumerate(index.par_bulk_query(texts)):
            groups.join(row + i, found)
    files.write_kept(folder, out, groups)


if __name__ == "__main__":
    files.main(work)
