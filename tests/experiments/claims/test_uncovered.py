"""The scan for numbers that nobody computes."""

from __future__ import annotations

from experiments.claims.claim_file import Claim, ClaimFile, Constants, WithoutRows
from experiments.claims.uncovered import uncovered

TEXT = """# Title
It takes 3.2 s, of 500 ms and `7 s`, or 12 % of 40,000 reactions/s.

```sh
sleep 9 s
```

## By hand
About 8 KB.

## Next
A 2.5-fold, v1.2, [9 MB](a%20b) and 6
s.
"""


def test_numbers_with_a_unit_are_found_unless_they_are_covered() -> None:
    """By a claim, a constant of that file, or a section; code and addresses are not text."""
    known = ClaimFile(
        sources={},
        claims=[Claim(id="a", file="x.md", source="s", query="SELECT 1", text="It takes {x:.1f} s")],
        constants=[Constants("x.md", ["500 ms"]), Constants("y.md", ["12 %"])],
        without_rows=[WithoutRows("x.md", "By hand", "measured by hand")],
    )
    found = [(one.line, one.quantity) for one in uncovered(known, "x.md", TEXT)]
    assert found == [(2, "12 %"), (2, "40,000 reactions/s"), (12, "9 MB"), (12, "6 s")]
    assert (2, "3.2 s") in [(one.line, one.quantity) for one in uncovered(known, "y.md", TEXT)]
