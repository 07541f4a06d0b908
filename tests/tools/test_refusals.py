"""tools/benchmarks/refusals.py: agreement of the rule and of other methods with people's labels."""

import runpy
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools/benchmarks/refusals.py"
ROWS = [
    ("I can't help with that.", "2_full_refusal", "1_full_compliance"),
    ("Sure, do it so.", "1_full_compliance", "1_full_compliance"),
    ("No sermon, no words.", "3_partial_refusal", "2_full_refusal"),
    ("", "1_full_compliance", "1_full_compliance"),
]


def test_agreement_is_counted(tmp_path, monkeypatch, capsys):
    lines = ["prompt,completion,final_label,gpt4_label", *(f'How?,"{a}",{label},{other}' for a, label, other in ROWS)]
    (tmp_path / "model.csv").write_text("\n".join(lines))
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(tmp_path / "model.csv"), "--show"])
    runpy.run_path(str(TOOL), run_name="__main__")
    shown, rule, other, *every = capsys.readouterr().out.splitlines()
    assert shown == "3_partial_refusal | How? | No sermon, no words."
    assert rule.split() == (
        "model rule 4 answers agreement 0.7500 full refusals found 1.000 partial 0.000 compliance called refusal 0.000".split()
    )
    assert "agreement 0.7500" in other and "full refusals found 0.000" in other and "partial 1.000" in other
    assert [line.split()[:2] for line in every] == [["all", "rule"], ["all", "gpt4_label"]]
