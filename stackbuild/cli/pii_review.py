"""`stackbuild pii review`: a page of findings to be judged by reading."""

from __future__ import annotations

from pathlib import Path

from stackbuild.errors import UsageError
from stackbuild.pii.options import PiiOptions
from stackbuild.pii_review import Sample, is_build, page, texts_of_build, texts_of_files, write_private
from stackbuild.standalone.redaction import check_private


def run(
    given: str, output: Path, size: int, seed: int, options: PiiOptions, text: str | None, language: str, typed: bool
) -> None:
    """Write the page, and say where it is and that it is private. `typed`: whether options of detectors were."""
    if output.is_dir():
        raise UsageError(f"{output} is a folder; --output names the page, such as {output / 'review.html'}.")
    sample = Sample(size, seed)
    built = is_build(Path(given))
    if built and typed:
        raise UsageError(
            f"{given} is a build: what it found is shown, by its recipe; name Parquet files to search anew."
        )
    if built and output.resolve().is_relative_to(Path(given).resolve()):
        raise UsageError(f"--output {output}: {given} is what may be passed on; the page is private.")
    if built:
        check_private(output, "--output", ())
    for one in texts_of_build(Path(given)) if built else texts_of_files([given], options, text, language, output):
        sample.add(one)
    write_private(output, page(sample, f"build {given}" if built else given))
    total = sum(sample.counts.values())
    print(f"{output}: {min(size, total):,} of {total:,} findings in {sample.texts:,} texts")
    print(
        "It shows personal data and secrets: only you can read it (mode 0600). Do not pass it on; delete it afterwards."
    )
