"""Verdicts and records."""

import json

from r1jax.rewards.record import RewardRecord, Verdict, common_failure


def test_only_right_is_true():
    assert [bool(v) for v in Verdict] == [True, False, False, False]
    assert Verdict("right") is Verdict.RIGHT and f"{Verdict.UNGRADED}" == "ungraded"


def test_a_record_survives_json():
    record = RewardRecord({"accuracy": None, "format": 1.0}, Verdict.UNGRADED, "the worker died")
    assert RewardRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_the_failure_that_most_ungraded_records_name():
    reasons = ["4 is no 5; reward mine: KeyError: 'x'", "right; reward mine: KeyError: 'x'", "grader hung", ""]
    records = [RewardRecord({}, Verdict.UNGRADED, reason) for reason in reasons]
    assert common_failure(records) == "reward mine: KeyError: 'x'"
    assert common_failure(records[3:]) == common_failure([]) == ""
