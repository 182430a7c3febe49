"""Options of fill-in-the-middle."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stackbuild.stage import Options

SENTINELS = 3  # that a treated fragment has more than before


class FimOptions(Options):
    """Which fragments are treated, and how. The rates are those of StarCoder2 (Lozhkov et al. 2024, section 5.1)."""

    rate: float = Field(0.5, ge=0, le=1, description="part of the documents of which fragments are treated")
    fragment_rate: float = Field(
        0.5, ge=0, le=1, description="part of the files that are treated in such a document, if it has several"
    )
    spm_rate: float = Field(
        0.5, ge=0, le=1, description="part of the treated fragments that put the suffix in front of the prefix (SPM)"
    )
    mode: Literal["characters", "ast"] = Field(
        "characters", description="where the middle is cut: anywhere, or around a node of the syntax tree"
    )
    ast_share: float = Field(1.0, ge=0, le=1, description='with mode = "ast", part of the fragments that are cut so')
    min_characters: int = Field(10, ge=0, description="shorter fragments are left as they are")
    slack: int = Field(8, ge=0, description="tokens kept free for a treated fragment beside its three sentinels")

    @property
    def room(self) -> int:
        """Tokens by which a treated fragment may be longer than it was."""
        return SENTINELS + self.slack
