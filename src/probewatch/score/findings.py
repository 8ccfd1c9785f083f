"""Incidents in the form that other systems read: OCSF Detection Findings, as lines of JSON.

OCSF 1.5, class 2004 (schema.ocsf.io); technique AML.T0024.000 of MITRE ATLAS; OWASP ML04:2023.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from probewatch import __version__
from probewatch.data.cells import printable
from probewatch.score.incidents import Activity, Incident, News, Severity

CLASS_UID = 2004
ATLAS = "https://atlas.mitre.org"
ATTACK = {
    "tactic": {"uid": "AML.TA0010", "name": "Exfiltration", "src_url": f"{ATLAS}/tactics/AML.TA0010"},
    "technique": {
        "uid": "AML.T0024",
        "name": "Exfiltration via AI Inference API",
        "src_url": f"{ATLAS}/techniques/AML.T0024",
    },
    "sub_technique": {
        "uid": "AML.T0024.000",
        "name": "Infer Training Data Membership",
        "src_url": f"{ATLAS}/techniques/AML.T0024.000",
    },
    "version": "ATLAS",
}
OWASP = "ML04:2023 Membership Inference Attack"
_STATUS = {Activity.CREATE: (1, "New"), Activity.UPDATE: (2, "In Progress"), Activity.CLOSE: (4, "Resolved")}


def to_finding(news: News, threshold: float) -> dict[str, Any]:
    """The finding that tells what is new of an incident; the same for the same news, at whatever time it is made."""
    incident, activity = news.incident, news.activity
    status_id, status = _STATUS[activity]
    first, last = _ms(incident.first_s), _ms(incident.last_s)
    again = "; the client was suspicious before" if incident.again else ""
    return {
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "category_uid": 2,
        "category_name": "Findings",
        "activity_id": int(activity),
        "activity_name": activity.name.capitalize(),
        "type_uid": 100 * CLASS_UID + activity,
        "type_name": f"Detection Finding: {activity.name.capitalize()}",
        "time": first if activity is Activity.CREATE else last,
        "start_time": first,
        "end_time": last,
        "count": incident.events,
        "severity_id": int(incident.severity),
        "severity": incident.severity.name.capitalize(),
        "status_id": status_id,
        "status": status,
        "confidence_score": round(100 * incident.peak),
        "message": sentence(incident),
        "metadata": {
            "version": "1.5.0",
            "uid": f"{incident.uid}-{int(activity)}",
            "correlation_uid": incident.uid,
            "labels": [OWASP],
            "product": {"name": "Probewatch", "vendor_name": "Probewatch", "version": __version__},
        },
        "finding_info": {
            "uid": incident.uid,
            "title": "Probing for training data",
            "desc": (f"{incident.why}{again}" if incident.why else again.lstrip("; "))
            or "the score reached the threshold",
            "types": ["Membership Inference", OWASP],
            "attacks": [ATTACK],
            "analytic": {"name": "Probewatch", "uid": "probewatch", "type": "Learning (ML/DL)", "type_id": 4},
            "created_time": first,
            "first_seen_time": first,
            "last_seen_time": last,
        },
        "resources": [{"type": "ML model", "name": incident.model, "uid": incident.model or "unnamed"}],
        "evidences": [
            {
                "name": "query log",
                "data": {
                    "client": incident.client,
                    "model": incident.model,
                    "session": incident.session,
                    "query_number": incident.number,
                    "queries_over_threshold": incident.events,
                    "peak_score": round(incident.peak, 6),
                    "threshold": round(threshold, 6),
                    "suspicious_before": incident.again,
                    "why": incident.why,
                },
            }
        ],
    }


def to_line(finding: Mapping[str, Any]) -> str:
    """A finding as a line of ASCII: nothing in it steers a terminal or reads as markup."""
    text = json.dumps(finding, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\x7f":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text + "\n"


def sentence(incident: Incident) -> str:
    """An incident in words, its names shown without what could steer a terminal.

    >>> sentence(Incident("", "eve\x1b[2J", "credit", "", 0.0, 0.0, 12, 1, 0.93, Severity.HIGH, False, ""))
    "client 'eve\\\\x1b[2J' probes model 'credit' for its training data: score up to 0.930, first alert at query 12"
    """
    model = f" model '{printable(incident.model)}'" if incident.model else " a model"
    return (
        f"client '{printable(incident.client)}' probes{model} for its training data:"
        f" score up to {incident.peak:.3f}, first alert at query {incident.number}"
    )


def _ms(time_s: float) -> int:
    return round(time_s * 1e3)


__all__ = ["ATTACK", "OWASP", "Severity", "sentence", "to_finding", "to_line"]
