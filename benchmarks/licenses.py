"""Licence detection: ours against ScanCode with all its matchers, on the same texts.

    python benchmarks/licenses.py [--texts DIR] [--sample 10] [--json]

The input is every text of an SPDX licence that ScanCode ships, of which the peer gets one in `--sample`, and ours is
measured on those too; with `--texts`, the licence-named files below a folder (their licences are not known, so no
accuracy is given). Accuracy on SPDX texts is near to a self-test for both: their data derive from these texts. Each
runs in a process of its own; loading is shown apart. A file counts as exact if its licence is found and no other (-only
and -or-later are one text), as unsafe if what was found is more permissive than the licence.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

GOAL_MS = 3.0  # amortised over the files of a tree; one in five is distinct there
Sample = list[tuple[str | None, bytes, bool]]


def texts(folder: str | None, step: int) -> Sample:
    """(expected key or None, bytes, whether the name is of a licence proper), one in `step`."""
    if folder is None:
        from licensedcode.cache import get_licenses_db

        found = [
            (one.spdx_license_key, one.text.encode(), True)
            for one in get_licenses_db().values()
            if one.text and not one.is_exception and not one.spdx_license_key.startswith("LicenseRef")
        ]
        return sorted(found)[::step]
    import pyarrow as pa

    from stackbuild.licenses.names import is_license_file, is_license_proper

    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and not path.is_symlink()]
    names = pa.array([str(path) for path in paths], pa.string())
    rows = zip(paths, is_license_file(names).to_pylist(), is_license_proper(names).to_pylist(), strict=True)
    return [(None, path.read_bytes(), proper) for path, named, proper in rows if named][::step]


def measure(engine: str, folder: str | None, step: int) -> dict[str, Any]:
    """Run one engine over the texts in this process."""
    from stackbuild.licenses import detect

    started = time.process_time()
    detect.warm()
    loaded = time.process_time()
    sample = texts(folder, step)
    detector = detect.Detector()
    answers, begun = [], time.process_time()
    for _, content, named in sample:
        if engine == "ours":
            answers.append(detector.detect(content, named).keys)
        else:
            matches = detect._index().match(query_string=content.decode("utf-8", "replace"))
            found = {detect.spdx_expression(match.rule.license_expression) for match in matches}
            answers.append(
                tuple({key for one in found if detect.stands_for_a_license(one) for key in detect.keys_of(one)})
            )
    seconds = time.process_time() - begun
    known = [(key, keys) for (key, _, _), keys in zip(sample, answers, strict=True) if key is not None]
    plain = [({detect._plain(key) for key in keys}, detect._plain(expected)) for expected, keys in known]
    return {
        "files": len(sample),
        "forms": len(detector._answers) or None,
        "ms": 1_000 * seconds / max(len(sample), 1),
        "MB/s": sum(len(content) for _, content, _ in sample) / 1e6 / max(seconds, 1e-9),
        "load_s": loaded - started,
        "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024,
        "exact": sum(keys == {key} for keys, key in plain) / len(plain) if plain else None,
        "hit": sum(key in keys for keys, key in plain) / len(plain) if plain else None,
        "unsafe": sum(max(map(detect.severity_of, keys), default=9) < detect.severity_of(key) for key, keys in known)
        if known
        else None,
    }


def apart(engine: str, folder: str | None, step: int) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--engine",
        engine,
        "--sample",
        str(step),
        *(["--texts", folder] if folder else []),
    ]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", help="a folder whose licence-named files are the input")
    parser.add_argument("--sample", type=int, default=10, help="the peer reads one text in so many")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.engine:
        print(json.dumps(measure(chosen.engine, chosen.texts, chosen.sample)))
        return
    rows = {
        "ours, all": apart("ours", chosen.texts, 1),
        "ours": apart("ours", chosen.texts, chosen.sample),
        "scancode": apart("scancode", chosen.texts, chosen.sample),
    }
    versions = {name: metadata.version(name) for name in ("scancode-toolkit-mini", "licenseclassifier")}
    if chosen.json:
        ours, peer = rows["ours"]["ms"], rows["scancode"]["ms"]
        print(
            json.dumps(
                {
                    "name": "licenses",
                    "unit": "CPU-ms per file",
                    "ours": ours,
                    "peers": {"scancode": peer},
                    "ratio": peer / ours,
                    "goal": GOAL_MS,
                    "meets": rows["ours, all"]["ms"] <= GOAL_MS,
                    "versions": versions,
                    "input": "a folder" if chosen.texts else "SPDX texts of ScanCode",
                    "detail": rows,
                }
            )
        )
        return
    print(f"{'':12}" + "".join(f"{column:>10}" for column in rows["ours"]))
    for name, row in rows.items():
        cells = ["-" if one is None else f"{one:.3f}" if isinstance(one, float) else str(one) for one in row.values()]
        print(f"{name:12}" + "".join(f"{cell:>10}" for cell in cells))
    print(
        f"ratio {rows['scancode']['ms'] / rows['ours']['ms']:.1f}",
        *(" ".join(one) for one in versions.items()),
        sep=", ",
    )


if __name__ == "__main__":
    main()
