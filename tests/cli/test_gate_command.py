"""``vlm-ops gate simulate``: one line of JSON for scripts, sentences for people."""

import json

from typer.testing import CliRunner

from vlm_ops.cli.commands import app

SMALL = ["gate", "simulate", "--nights", "3", "--runs", "20", "--groups", "12"]


def test_json_is_one_line_and_progress_goes_to_stderr() -> None:
    done = CliRunner().invoke(app, [*SMALL, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["nights"], found["runs"], found["groups"]) == (3, 20, 12)
    assert {
        "false_promotions", "false_promotions_high", "wrong_share_mixed", "power", "printed_power",
        "inflation", "nights_until", "groups_needed",
    } <= set(found)  # fmt: skip
    assert set(found["power"]) == {"2", "4", "8"}
    assert set(found["power"]["4"]) == {"1", "12"}
    assert "simulating" in done.stderr


def test_people_read_sentences() -> None:
    done = CliRunner().invoke(app, SMALL)
    assert done.exit_code == 0, done.output
    assert "20 years of 3 retrains, each a look at the same 12 test groups" in " ".join(
        done.stdout.split()
    )
    assert "Groups like these for +4 in 80 % of cases" in done.stdout
