"""A finding is valid OCSF, and nothing in it comes alive."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_ocsf_models.events.findings.detection_finding import DetectionFinding

from probewatch.score.findings import sentence, to_finding, to_line
from probewatch.score.incidents import Activity, Incident, News, Severity


def incident(**changes: Any) -> Incident:
    values = {
        "uid": "u1", "client": "eve", "model": "credit", "session": "s", "first_s": 1772330024.848,
        "last_s": 1772330030.5, "number": 12, "events": 3, "peak": 0.93, "severity": Severity.HIGH, "again": False,
        "why": "exact repeats (40%) +2.0",
    }  # fmt: skip
    return Incident(**{**values, **changes})


@pytest.mark.parametrize("activity", list(Activity))
@pytest.mark.parametrize(
    "changes", [{}, {"model": "", "session": "", "why": ""}, {"again": True, "severity": Severity.CRITICAL}]
)
def test_a_finding_is_a_valid_ocsf_detection_finding(activity: Activity, changes: dict[str, Any]) -> None:
    finding = to_finding(News(activity, incident(**changes)), 0.6)
    parsed = DetectionFinding.model_validate(json.loads(to_line(finding)))
    assert parsed.class_uid == 2004 and parsed.type_uid == 200400 + activity
    assert parsed.finding_info.attacks[0].sub_technique.uid == "AML.T0024.000"
    assert parsed.finding_info.attacks[0].technique.uid == "AML.T0024"
    assert any(kind.startswith("ML04:2023") for kind in parsed.finding_info.types)
    assert (parsed.start_time, parsed.end_time) == (1772330024848, 1772330030500)
    assert parsed.severity_id.value == finding["severity_id"] and parsed.severity == parsed.severity_id.name
    assert parsed.evidences[0].data["peak_score"] == 0.93


def test_every_field_of_a_finding_is_known_to_ocsf() -> None:
    known = DetectionFinding.model_fields
    assert not set(to_finding(News(Activity.CREATE, incident()), 0.6)) - set(known)


HOSTILE = "\x1b]0;owned\x07<script>alert(1)</script>\u202e\r\n&\x7f"


@given(st.one_of(st.just(HOSTILE), st.text()))
def test_a_hostile_name_is_told_whole_and_harmless(name: str) -> None:
    line = to_line(to_finding(News(Activity.CREATE, incident(client=name, model=name, session=name)), 0.6))
    assert json.loads(line)["evidences"][0]["data"]["client"] == name
    assert line.endswith("\n") and line.isascii() and line[:-1].isprintable()
    assert not set("<>&") & set(line)
    words = sentence(incident(client=name, model=name))
    assert not any(sign in words for sign in "\x1b\x07\r\n\x7f\u202e")
