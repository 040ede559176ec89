"""What a suite's yaml says about a claim of a paper: the runs that decide it, the test, and the margin."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from rosa_bench.config import GROUPS
from rosa_bench.core.schema import Name, configured
from rosa_bench.stats.effects import Region

Measured = Literal[
    "score", "loss", "seconds", "memory", "activations", "update_rank", "start_cosine", "latency", "batch_latency"
]


@configured
class Comparison:
    """The runs to compare, the measure that decides a claim, and the region in which the effect must lie.

    `ours` and `theirs` select cells by overrides, such as `{method: lora, method.rank: [1, 2]}`. `rank` selects by the
    rank at which a model is scored, and `variant: any` selects every variant of a model, not only its main one. The
    effect is a difference of scores or a ratio of other measures; without `theirs` it is the value itself.
    """

    ours: dict[str, Any] = Field(min_length=1)  # overrides that select cells
    theirs: dict[str, Any] | None = None  # cells to compare with; null: the effect is the value itself
    by: Literal["rank"] | None = None  # compare models of equal rank
    each: bool = False  # test each rank separately; else test their mean
    measure: Measured = "score"  # what is compared
    above: float | None = None  # lower end of the region in which the effect must lie; null: none
    below: float | None = None  # upper end of the region; null: none

    @model_validator(mode="after")
    def _bounded(self) -> Comparison:
        if self.above is None and self.below is None:
            raise ValueError("needs above or below")
        if self.region.above >= self.region.below:
            raise ValueError(f"above={self.above} is not less than below={self.below}")
        bounds = [bound for bound in (self.above, self.below) if bound is not None]
        if self.theirs is not None and self.measure != "score" and min(bounds) <= 0:
            raise ValueError(f"{self.measure} of ours over theirs is a ratio; above and below must be greater than 0")
        if self.each and self.by is None:
            raise ValueError("each needs by")
        for key in {**self.ours, **(self.theirs or {})}:
            if key not in ("rank", "variant") and key.partition(".")[0] not in GROUPS:
                raise ValueError(f"{key} selects no runs; write rank, variant, or an override such as method.rank")
        return self

    @property
    def region(self) -> Region:
        """The region of the effect for which the claim holds."""
        above, below = self.above, self.below
        return Region(-math.inf if above is None else above, math.inf if below is None else below)


@configured
class Claim:
    """A statement in a paper, and the comparisons that decide it.

    The claim holds if every comparison in `tests` lies in its region. `given` states conditions, for example that a
    task distinguishes good methods from bad ones at all. A task that does not meet them is left out; if the remaining
    tasks together do not meet them either, the claim stays undecided.
    """

    id: Name  # a name for references to the claim
    claim: Name  # the claim in one sentence
    paper: Name  # the paper's name in results/papers/reported.csv
    place: Name  # where the paper states the claim
    tests: list[Comparison] = Field(min_length=1)  # the claim holds if all effects lie in their regions
    given: list[Comparison] = Field(default_factory=list)  # conditions; tasks that do not meet them are left out
    printed: Name  # the paper's numbers; {name} is filled in from `numbers`
    numbers: dict[str, str | dict[str, str]] = Field(default_factory=dict)  # where each number is in results/papers
    limits: str | None = None  # what the verdict does not show
