"""The stages, phase by phase, on tables of the test's own, and in a whole build."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import UsageError
from stackbuild.hashing import content_buckets, owner_bucket
from stackbuild.licenses.inherit import DETECTIONS, VERDICTS
from stackbuild.licenses.lists import LicenseDataError
from stackbuild.licenses.stage import WANTED, LicenseFilter, LicenseFilterOptions, Licenses, LicensesOptions
from stackbuild.schema import LICENSE_FIELDS, OCCURRENCES
from stackbuild.shards import Attempt
from stackbuild.stage import judge, with_columns
from stackbuild.task import Task
from tests.worlds import GPL, MIT

PARTITIONS = 4
File = tuple[str, str, str | None]  # repository, path, GitHub's id


def git_id(content: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).digest()


class World:
    """Occurrences in partitions, contents in partitions, and the phases run over them through real tasks."""

    def __init__(self, out: Path, files: dict[File, bytes], **options: Any):
        self.out, self.files, self.stage = out, files, Licenses(LicensesOptions(**options))
        names = ("ingest.tree", "wanted", "unread", "detections", "verdicts", "rules", "headers")
        self.tables: dict[str, list[Any]] = {name: [] for name in names}
        for phase in self.stage.phases():
            made: list[Any] = []
            for rank in range(PARTITIONS):
                attempt = Attempt(out, f"00-{phase.name}", rank)
                rows = partial(self.rows_of, rank) if phase.tasks == "partition" else None
                contents = partial(self.contents_of, rank) if phase.tasks == "contents" else None
                phase.run(self.task(rank, attempt=attempt, rows=rows, contents=contents, job=f"00-{phase.name}"))
                made += attempt.commit(f"{phase.name}{rank}" + "0" * 24, attempt_ledger(attempt), {}).outputs
            for output in made:
                self.tables[output.table].append(output)

    def task(self, rank: int, job: str = "00-licenses", **rest: Any) -> Task:
        return Task(
            out=self.out,
            job=job,
            rank=rank,
            params={},
            options=self.stage.options,
            seed=1,
            partitions=PARTITIONS,
            tables=self.tables,
            **rest,
        )

    def rows_of(self, rank: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return iter([self.batch(rank).select(columns)])

    def contents_of(self, rank: int, ids: pa.Array | None) -> Iterator[pa.RecordBatch]:
        """All of the partition: what was not asked for has to be passed over."""
        return iter(self.contents(rank))

    def batch(self, rank: int) -> pa.RecordBatch:
        rows = [
            {
                **dict.fromkeys(OCCURRENCES.names),
                "owner_bucket": rank,
                "repo_name": repo,
                "revision_id": "r",
                "gha_license_id": github,
                "path": "/" + path,
                "path_bytes": path.encode(),
                "path_lossy": False,
                "mode": 0o100644,
                "extension": "",
                "content_id": git_id(content),
                "blob_id": hashlib.sha1(content).digest(),
                "length": len(content),
            }
            for (repo, path, github), content in self.files.items()
            if owner_bucket(repo, PARTITIONS) == rank
        ]
        return pa.RecordBatch.from_pylist(rows, OCCURRENCES)

    def contents(self, rank: int) -> list[pa.RecordBatch]:
        import numpy as np

        found = {git_id(content): content for content in self.files.values()}
        here = [
            i
            for i in sorted(found)
            if content_buckets(np.frombuffer(i, np.uint8).reshape(1, 20), PARTITIONS)[0] == rank
        ]
        return [
            pa.record_batch(
                {
                    "content_id": pa.array(here, pa.binary(20)),
                    "content": pa.array([found[i] for i in here], pa.large_binary()),
                }
            )
        ]

    def tagged(self) -> dict[tuple[str, str], dict[str, Any]]:
        found = {}
        for rank in range(PARTITIONS):
            self.stage.load(self.task(rank))
            rows = self.batch(rank)
            for row in with_columns(rows, self.stage.tags(rows)).to_pylist():
                found[row["repo_name"], row["path"]] = row
        return found

    def read(self, table: str) -> list[dict[str, Any]]:
        return [row for output in self.tables[table] for row in pq.read_table(self.out / output.file).to_pylist()]


def attempt_ledger(attempt: Attempt) -> Any:
    from stackbuild.decisions import Decisions

    decisions = Decisions(attempt, "licenses", PARTITIONS)
    decisions.close()
    return decisions.ledger


DEP5 = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2020 Moe
License: Expat

Files: contrib/*
Copyright: 2020 Moe
License: GPL-2+
"""

FILES: dict[File, bytes] = {
    ("ann/one", "LICENSE", None): MIT.encode(),
    ("ann/one", "src/main.c", None): b"int x;\n",
    ("ann/one", "vendor/COPYING", None): (GPL * 3).encode(),
    ("ann/one", "vendor/deep/y.c", None): b"int y;\n",
    ("bob/two", "main.c", None): b"int x;\n",
    ("cat/six", "LICENSE", "GPL-3.0"): MIT.encode(),
    ("cat/six", "z.c", "GPL-3.0"): b"int z;\n",
    ("dan/odd", "LICENSE", None): b"You may dance to it.\n",
    ("dan/odd", "z.c", None): b"int z;\n",
    ("eve/pdf", "LICENSE", None): b"%PDF-1.7\0\0\0\0",
    ("eve/pdf", "z.c", None): b"int z;\n",
    ("fay/js", "about.js", None): ("/*\n" + GPL * 3 + "*/").encode(),
    ("fay/js", "z.c", None): b"int z;\n",
    ("gus/dual", "LICENSE", None): b"SPDX-License-Identifier: MIT OR GPL-2.0-only\n",
    ("gus/dual", "z.c", None): b"int z;\n",
    ("hal/big", "LICENSE", None): (MIT + "lorem ipsum\n" * 900_000).encode(),
    ("ida/choke", "LICENSE", None): (MIT + "\nSPDX-License-Identifier: MIT/Apache-2.0 AND OR )(\n").encode(),
    ("ida/choke", "z.c", None): b"int z;\n",
    ("joe/mpl", "LICENSE", None): b"SPDX-License-Identifier: MPL-2.0\n",
    ("joe/mpl", "z.c", None): b"int z;\n",
    ("kim/npm", "package.json", None): b'{"license": "GPL-3.0-only"}',
    ("kim/npm", "lib/i.js", None): b"f()\n",
    ("lea/reuse", "COPYING", None): (GPL * 3).encode(),
    ("lea/reuse", "REUSE.toml", None): b'[[annotations]]\npath = "gen/**"\nSPDX-License-Identifier = "MIT"\n',
    ("lea/reuse", "gen/x.c", None): b"int gen;\n",
    ("lea/reuse", "y.c", None): b"int y;\n",
    ("moe/deb", "debian/copyright", None): DEP5.encode(),
    ("moe/deb", "a.c", None): b"int a;\n",
    ("moe/deb", "contrib/b.c", None): b"int b;\n",
    ("nan/old", "debian/copyright", None): (GPL * 3).encode(),
    ("nan/old", "a.c", None): b"int old;\n",
    ("ole/head", "LICENSE", None): MIT.encode(),
    ("ole/head", "gpl.c", None): b"/* SPDX-License-Identifier: GPL-3.0-only */\nint g;\n",
    ("pia/docs", "LICENSE", None): MIT.encode(),
    ("pia/docs", "docs/license.rst", None): b"License\n=======\n\n.. include:: ../../../../etc/LICENSE\n",
    ("pia/docs", "docs/COPYRIGHT", None): b"Pia and others, 2020\n",
    ("pia/docs", "docs/conf.c", None): b"int c;\n",
    ("quo/read", "README.md", None): b"# quo\n\n## License\n\nApache-2.0\n",
    ("quo/read", "q.c", None): b"int q;\n",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), FILES)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("published"), FILES, policy="the-stack-v2")


def test_classes_of_the_default_policy(world: World) -> None:
    found = {key: (row["license_class"], row["license_type"]) for key, row in world.tagged().items()}
    assert found["ann/one", "/src/main.c"] == ("permissive", "permissive")
    assert found["ann/one", "/vendor/deep/y.c"] == ("non_permissive", "non_permissive")
    assert found["bob/two", "/main.c"] == ("no_license", "no_license")
    assert found["cat/six", "/z.c"] == (
        "permissive",
        "permissive",
    )  # its licence file is nearer than what the host says
    assert found["dan/odd", "/z.c"] == found["eve/pdf", "/z.c"] == ("unknown", "non_permissive")
    assert found["fay/js", "/z.c"] == ("no_license", "no_license")  # about.js speaks for itself alone
    assert found["gus/dual", "/z.c"] == ("permissive", "permissive")
    assert found["hal/big", "/LICENSE"][0] == "permissive"
    assert found["ida/choke", "/z.c"][0] in ("permissive", "unknown")
    assert found["joe/mpl", "/z.c"] == ("weak_copyleft", "non_permissive")


def test_manifests_path_rules_and_read_mes_speak(world: World) -> None:
    found = {
        key: (row["license_class"], [(e["kind"], e["expression"]) for e in row["license_evidence"] if e["decides"]])
        for key, row in world.tagged().items()
    }
    assert found["kim/npm", "/lib/i.js"] == ("non_permissive", [("manifest", "GPL-3.0-only")])
    assert found["lea/reuse", "/gen/x.c"] == ("permissive", [("path_rule", "MIT")])
    assert found["lea/reuse", "/y.c"][0] == "non_permissive"
    assert found["moe/deb", "/a.c"] == ("permissive", [("path_rule", "MIT")])
    assert found["moe/deb", "/contrib/b.c"] == ("non_permissive", [("path_rule", "GPL-2.0-or-later")])
    assert found["nan/old", "/a.c"][0] == "non_permissive"  # debian/copyright in prose speaks for the folder above
    assert found["quo/read", "/q.c"] == ("permissive", [("notice", "Apache-2.0")])


def test_a_pointer_is_not_followed_and_hides_nothing(world: World) -> None:
    """Where it points to may lie outside of the repository."""
    row = world.tagged()["pia/docs", "/docs/conf.c"]
    assert row["license_class"] == "permissive"
    assert [e["path"] for e in row["license_evidence"] if e["decides"]] == ["/LICENSE"]


def test_headers_are_told_once_for_each_content_by_its_partition(world: World) -> None:
    import numpy as np

    told = {row["content_id"]: row for row in world.read("headers")}
    row = told[git_id(FILES["ole/head", "gpl.c", None])]
    (said,) = row["said"]
    assert (said["expression"], said["first_line"], said["last_line"]) == ("GPL-3.0-only", 1, 1)
    buckets = content_buckets(np.frombuffer(b"".join(told), np.uint8).reshape(-1, 20), PARTITIONS)
    assert [row["bucket"] for row in told.values()] == buckets.tolist()
    assert git_id(b"int z;\n") not in told


def test_classes_of_the_published_policy(published: World) -> None:
    found = {key: (row["license_class"], row["license_type"]) for key, row in published.tagged().items()}
    assert found["dan/odd", "/z.c"] == found["eve/pdf", "/z.c"] == ("no_license", "no_license")
    assert found["cat/six", "/z.c"] == ("non_permissive", "non_permissive")
    assert found["fay/js", "/z.c"] == ("non_permissive", "non_permissive")
    assert found["gus/dual", "/z.c"] == ("non_permissive", "non_permissive")
    assert found["ann/one", "/vendor/deep/y.c"][1] == "non_permissive"


def test_evidence_says_which_file_and_which_engine(world: World) -> None:
    found = world.tagged()
    row = found["ann/one", "/src/main.c"]
    assert row["detected_licenses"] == ["MIT"]
    (evidence,) = row["license_evidence"]
    assert (evidence["path"], evidence["expression"], evidence["kind"]) == ("/LICENSE", "MIT", "license_file")
    assert evidence["engine"].split()[0] in ("scancode", "licenseclassifier") and 0.7 < evidence["score"] <= 1
    file, host = found["cat/six", "/z.c"]["license_evidence"]
    assert (host["kind"], host["expression"], host["path"]) == ("host", "GPL-3.0", None) and file["expression"] == "MIT"
    assert (file["decides"], host["decides"]) == (True, False)
    assert (
        found["bob/two", "/main.c"]["license_evidence"] == [] and found["bob/two", "/main.c"]["detected_licenses"] == []
    )
    assert found["gus/dual", "/z.c"]["detected_licenses"] == ["GPL-2.0-only", "MIT"]


def test_the_columns_are_flat_and_of_the_schema(world: World) -> None:
    """The first release nested its licence columns in structs, so that they could not be filtered on."""
    world.stage.load(world.task(0))
    for rank in range(PARTITIONS):
        tags = world.stage.tags(world.batch(rank))
        assert {name: column.type for name, column in tags.items()} == {
            field.name: field.type for field in LICENSE_FIELDS
        }
    assert world.stage.tags(world.batch(0).slice(0, 0))["license_type"].to_pylist() == []


def test_what_passes_between_the_partitions_is_keyed_by_both(world: World) -> None:
    wanted, detections = world.read("wanted"), world.read("detections")
    assert {row["bucket"] for row in wanted} <= set(range(PARTITIONS)) and set(WANTED.names) == set(wanted[0])
    key = ("partition", "content_id", "format")
    assert sorted(tuple(r[k] for k in key) for r in wanted) == sorted(tuple(r[k] for k in key) for r in detections)
    assert len({tuple(r[k] for k in key) for r in wanted}) == len(wanted)
    assert {row["partition"] for row in world.read("verdicts")} <= set(range(PARTITIONS))
    assert set(DETECTIONS.names) == set(detections[0]) and set(VERDICTS.names) == set(world.read("verdicts")[0])


def test_the_stage_drops_nothing_and_needs_its_phases(world: World) -> None:
    assert list(world.stage.verdicts(world.batch(0))) == []
    with pytest.raises(UsageError, match="phases"):
        Licenses().tags(world.batch(0))


def test_options_are_checked_when_the_stage_is_made() -> None:
    with pytest.raises(LicenseDataError, match="no licence policy"):
        Licenses(LicensesOptions(policy="nice"))
    with pytest.raises(LicenseDataError, match="no licence list"):
        Licenses(LicensesOptions(permissive="nice"))
    assert Licenses().key() != Licenses(LicensesOptions(permissive="strict")).key()


def files_of(classes: list[str | None], keys: list[list[str] | None]) -> pa.RecordBatch:
    return pa.record_batch(
        {"license_class": pa.array(classes, pa.string()), "detected_licenses": pa.array(keys, pa.list_(pa.string()))}
    )


def test_the_filter_keeps_classes_and_says_why() -> None:
    files = files_of(["permissive", "weak_copyleft", "no_license", None], [["MIT"], ["MIT", "MPL-2.0"], [], None])
    keep, (left,) = judge(LicenseFilter().verdicts(files), 4)
    assert keep.to_pylist() == [True, False, False, False] and left.verdict.rule == "license_class"
    assert left.verdict.detail is not None
    assert left.verdict.detail.take(left.rows).to_pylist() == ["weak_copyleft: MIT, MPL-2.0", "no_license", "unknown"]
    keep, _ = judge(LicenseFilter(LicenseFilterOptions(keep=("permissive", "no_license"))).verdicts(files), 4)
    assert keep.to_pylist() == [True, False, True, False]


def test_the_filter_refuses_classes_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="keep"):
        LicenseFilterOptions(keep=("nice",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep"):
        LicenseFilterOptions(keep=())
