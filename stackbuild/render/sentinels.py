"""The sentinel tokens of the BigCode models, in their published order.

StarCoder2: Lozhkov et al. 2024, Table 5 (34 sentinels) and then the four placeholders of its PII redaction.
StarCoder: the released tokenizer's ids 0 to 18. SantaCoder: the released names, hyphenated, behind its 49,152
ordinary tokens. In a tokenizer trained here, a sentinel's id is its place in the list; elsewhere ids are looked up by
name, never assumed.
"""

from __future__ import annotations

from collections.abc import Mapping

from stackbuild.errors import InputError

END_OF_TEXT = "<|endoftext|>"
REPO_NAME = "<repo_name>"
FILE_SEP = "<file_sep>"
REPONAME, FILENAME, GH_STARS = "<reponame>", "<filename>", "<gh_stars>"

STARCODER2 = (
    END_OF_TEXT,
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    REPO_NAME,
    FILE_SEP,
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
    "<code_to_intermediate>",
    "<intermediate_to_code>",
    "<pr>",
    "<pr_status>",
    "<pr_is_merged>",
    "<pr_base>",
    "<pr_file>",
    "<pr_base_code>",
    "<pr_diff>",
    "<pr_diff_hunk>",
    "<pr_comment>",
    "<pr_event_id>",
    "<pr_review>",
    "<pr_review_state>",
    "<pr_review_comment>",
    "<pr_in_reply_to_review_id>",
    "<pr_in_reply_to_comment_id>",
    "<pr_diff_hunk_comment_line>",
)
PII_PLACEHOLDERS = ("<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>")
STARCODER2_ALL = STARCODER2 + PII_PLACEHOLDERS

STARCODER1 = (
    END_OF_TEXT,
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    FILENAME,
    GH_STARS,
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
    REPONAME,
)

SANTACODER = (END_OF_TEXT, "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "starcoder2": STARCODER2_ALL,
    "starcoder": STARCODER1,
    "santacoder": SANTACODER,
}

FIM = ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")

# What the layout writes itself, and what makes its shards FIM-ready.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "starcoder2": (END_OF_TEXT, REPO_NAME, FILE_SEP, *FIM),
    "starcoder": (END_OF_TEXT, REPONAME, FILENAME, GH_STARS, *FIM),
    "santacoder": SANTACODER,
}


def require(ids: Mapping[str, int], layout: str, where: str) -> None:
    """Raise InputError, naming every missing sentinel, unless `ids` (name to id) has all that `layout` needs."""
    missing = [name for name in REQUIRED[layout] if name not in ids]
    if missing:
        raise InputError(
            f"{where} has no token {', '.join(missing)}, which the layout {layout} writes or FIM needs. "
            'Use a tokenizer that has them as special tokens, or set tokenizer = "train".'
        )
