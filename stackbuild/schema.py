"""The Arrow schemas of every table that crosses a stage boundary: the one place where columns are named.

The release carries The Stack v2's 26 columns under their published names and types (dataset card of the-stack-v2); what is
ours stands beside them. Ids are binary(20) inside and hex on release: `blob_id` is the plain SHA-1 of the bytes (the object
key), `content_id` the git SHA-1 (the SWHID). Dates are timestamp[ns]; one out of range is null.
"""

from __future__ import annotations

import pyarrow as pa

ID = pa.binary(20)
TIMESTAMP = pa.timestamp("ns")
UNKNOWN_LANGUAGE = "Unknown"  # what the dataset says where no language was told

# ---------------------------------------------------------------- occurrences: one row per (origin, revision, path), no bytes

ORIGIN_FIELDS = [
    pa.field("repo_name", pa.string(), nullable=False),
    pa.field("repo_url", pa.string()),
    pa.field("snapshot_id", pa.string()),
    pa.field("revision_id", pa.string(), nullable=False),
    pa.field("directory_id", pa.string()),
    pa.field("branch_name", pa.string()),
    pa.field("visit_date", TIMESTAMP),
    pa.field("revision_date", TIMESTAMP),
    pa.field("committer_date", TIMESTAMP),
    pa.field("github_id", pa.int64()),
    pa.field("star_events_count", pa.int64()),
    pa.field("fork_events_count", pa.int64()),
    pa.field("gha_license_id", pa.string()),
    pa.field("gha_event_created_at", TIMESTAMP),
    pa.field("gha_created_at", TIMESTAMP),
    pa.field("gha_language", pa.string()),
    pa.field(
        "other_names", pa.string()
    ),  # by which it was known beside repo_name, the oldest first, with a space between two
    pa.field("forked_from", pa.string()),  # the repository, as it was called then
]

OCCURRENCES = pa.schema(
    [
        pa.field("owner_bucket", pa.uint16(), nullable=False),  # hash of the folded owner, modulo the partitions
        *ORIGIN_FIELDS,
        pa.field("path", pa.string(), nullable=False),  # begins with "/", U+FFFD for bytes that are not UTF-8
        pa.field("path_bytes", pa.binary(), nullable=False),  # as the source has it, without a leading "/"
        pa.field("path_lossy", pa.bool_(), nullable=False),
        pa.field("mode", pa.int32(), nullable=False),  # git's: 0o100644 or 0o100755
        pa.field("extension", pa.string(), nullable=False),  # of the base name, without dot, lower case is not forced
        pa.field("content_id", ID, nullable=False),
        pa.field("blob_id", ID, nullable=False),
        pa.field("length", pa.int64(), nullable=False),  # raw bytes
    ]
)

# One row for each (repository, revision) that a unit told of, also if none of its files was read.
ORIGINS = pa.schema([pa.field("owner_bucket", pa.uint16(), nullable=False), *ORIGIN_FIELDS])

# What is not a regular file stays provable: symlinks, gitlinks, and files whose bytes were not read.
TREE = pa.schema(
    [
        pa.field("owner_bucket", pa.uint16(), nullable=False),
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("path_bytes", pa.binary(), nullable=False),
        pa.field("mode", pa.int32(), nullable=False),
        pa.field("target", ID),  # git id of the entry, where known
    ]
)

# What proves the place of a released file: the rest of its tree. See layout.trees.
MANIFEST_TREE = pa.schema([field for field in TREE if field.name != "owner_bucket"])

CONTENTS = pa.schema(
    [
        pa.field("content_id", ID, nullable=False),
        pa.field("blob_id", ID, nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("content", pa.large_binary(), nullable=False),
    ]
)

# ---------------------------------------------------------------- what each stage adds

EVIDENCE = pa.struct(
    [
        pa.field("path", pa.string()),  # of the licence file, as in `path`
        pa.field("expression", pa.string()),  # SPDX expression as detected
        pa.field("kind", pa.string()),  # override, header, aggregate, path_rule, license_file, manifest, notice, host
        pa.field("engine", pa.string()),  # name and version
        pa.field("score", pa.float32()),  # 0 to 1
        pa.field("first_line", pa.int32()),  # from 1; null where the whole file says it, or no file
        pa.field("last_line", pa.int32()),
        pa.field("said", pa.string()),  # the words of a manifest or rule
        pa.field("decides", pa.bool_()),  # whether it is among what the verdict follows from
        pa.field("repo_name", pa.string()),  # of the evidence, where it is another copy's; else null
    ]
)

LICENSE_FIELDS = [
    pa.field("detected_licenses", pa.list_(pa.string())),
    pa.field("license_type", pa.string()),  # permissive, no_license, non_permissive: v2's three values
    pa.field("license_class", pa.string()),  # permissive, no_license, unknown, weak_copyleft, non_permissive
    pa.field("license_evidence", pa.list_(EVIDENCE)),
]

SPANS = pa.list_(
    pa.struct(
        [
            pa.field("start", pa.int64()),  # bytes of the UTF-8 text, half open
            pa.field("end", pa.int64()),
            pa.field("entity", pa.string()),
            pa.field("rule", pa.string()),
            pa.field("replacement", pa.string()),
        ]
    )
)

# How many of each entity were replaced in a file, by name; null where nothing was looked for.
REDACTIONS_BY_ENTITY = pa.list_(pa.struct([pa.field("entity", pa.string()), pa.field("count", pa.int64())]))

# In a manifest: what changed a decoded text, in order.
TRANSFORMS = pa.list_(
    pa.struct(
        [
            pa.field("name", pa.string()),  # of the stage
            pa.field("version", pa.string()),  # of its rules and code
            pa.field("count", pa.int64()),  # of what it replaced; null where it does not count
        ]
    )
)

# ---------------------------------------------------------------- decisions: one row for each file that left

DECISIONS = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),  # dropped, merged, quarantined
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("detail", pa.string()),  # a verdict in words: the licence expression, the kept file
        pa.field("kept_content_id", ID),  # the file that stays in its place, for copies
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("path_bytes", pa.binary(), nullable=False),
        pa.field("content_id", ID),
        pa.field("length", pa.int64()),
    ]
)

IDENTITY = ["repo_name", "revision_id", "path", "path_bytes", "content_id", "length"]
TOTAL_ORDER = ["content_id", "repo_name", "revision_id", "path_bytes"]

CLUSTERS = pa.schema(
    [
        pa.field("cluster_id", ID, nullable=False),  # the smallest content_id of the cluster
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("content_id", ID, nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("kept_content_id", ID),  # the kept twin of a removed file
        pa.field("similarity", pa.float32()),  # exact Jaccard with the kept twin
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
    ]
)

# ---------------------------------------------------------------- the release

V2_FIELDS = [
    pa.field("blob_id", pa.string()),
    pa.field("directory_id", pa.string()),
    pa.field("path", pa.string()),
    pa.field("content_id", pa.string()),
    pa.field("detected_licenses", pa.list_(pa.string())),
    pa.field("license_type", pa.string()),
    pa.field("repo_name", pa.string()),
    pa.field("snapshot_id", pa.string()),
    pa.field("revision_id", pa.string()),
    pa.field("branch_name", pa.string()),
    pa.field("visit_date", TIMESTAMP),
    pa.field("revision_date", TIMESTAMP),
    pa.field("committer_date", TIMESTAMP),
    pa.field("github_id", pa.int64()),
    pa.field("star_events_count", pa.int64()),
    pa.field("fork_events_count", pa.int64()),
    pa.field("gha_license_id", pa.string()),
    pa.field("gha_event_created_at", TIMESTAMP),
    pa.field("gha_created_at", TIMESTAMP),
    pa.field("gha_language", pa.string()),
    pa.field("src_encoding", pa.string()),
    pa.field("language", pa.string()),
    pa.field("is_vendor", pa.bool_()),
    pa.field("is_generated", pa.bool_()),
    pa.field("length_bytes", pa.int64()),
    pa.field("extension", pa.string()),
]

SIGNAL_FIELDS = [
    pa.field("num_lines", pa.int64()),
    pa.field("num_chars", pa.int64()),
    pa.field("line_chars", pa.int64()),  # outside line ends: what the mean line length divides
    pa.field("max_line_length", pa.int64()),  # characters
    pa.field("alphabetic_chars", pa.int64()),
    pa.field("alphanumeric_chars", pa.int64()),
    pa.field("encoded_chars", pa.int64()),  # in the union of the Q7 spans
    pa.field("longest_encoded_run", pa.int64()),
    pa.field("autogenerated_phrase", pa.string()),  # of rule Q5, null if none
    pa.field("visible_text_chars", pa.int64()),  # of rule Q9, HTML only
]

SYNTAX_FIELDS = [
    pa.field("comment_chars", pa.int64()),  # with their marks; null where the file was not parsed
    pa.field("docstring_chars", pa.int64()),  # with their quotes; Python's, 0 for other languages
    pa.field("error_chars", pa.int64()),  # under the parser's error nodes
]
FERTILITY_FIELDS = [pa.field("token_count", pa.int64())]
# A column of each instance of the stage `classifier`: this name, and for `classifier:edu` "_edu" behind it. A release has them
# in one column, by instance.
CLASSIFIER_SCORE = "classifier_score"
CLASSIFIER_SCORES = pa.list_(pa.struct([pa.field("classifier", pa.string()), pa.field("score", pa.float32())]))

NATURAL_LANGUAGE_FIELDS = [
    pa.field("natural_language", pa.string()),  # of prose, as the model names it; null where not asked or not clear
    pa.field("natural_language_score", pa.float32()),  # 0 to 1
]

DATASET_FIELDS = [
    *V2_FIELDS,
    pa.field("repo_url", pa.string()),
    pa.field("path_lossy", pa.bool_()),
    pa.field("path_bytes", pa.binary()),
    pa.field("length", pa.int64()),
    pa.field("license_class", pa.string()),
    pa.field("license_evidence", pa.list_(EVIDENCE)),
    pa.field("lossless", pa.bool_()),
    pa.field("is_documentation", pa.bool_()),
    pa.field("is_test", pa.bool_()),
    *SIGNAL_FIELDS,
    *SYNTAX_FIELDS,
    *FERTILITY_FIELDS,
    pa.field("classifier_scores", CLASSIFIER_SCORES),
    *NATURAL_LANGUAGE_FIELDS,
    pa.field("copies", pa.int64()),  # occurrences of these bytes that were still in when exact copies were merged
    pa.field("cluster_id", pa.string()),
    pa.field("cluster_size", pa.int64()),
    pa.field("redactions", pa.int64()),
    pa.field("redactions_by_entity", REDACTIONS_BY_ENTITY),
    pa.field("content", pa.large_string()),
]
DATASET = pa.schema(DATASET_FIELDS)

# For look-ups by content; sorted by it.
CONTENT_INDEX = pa.schema(
    [
        DATASET.field(n)
        for n in ("content_id", "blob_id", "repo_name", "revision_id", "path", "language", "license_type")
    ]
)
