"""The contract checks of what operators see of a plugin: the rows of its panels, the findings of its checks, the samples of its metrics.

Owns the host on fakes on which it looks. The test's thread. Called by `check_plugin_module`; what the clients do on those fakes is not
judged here, `check_client` does that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from nvcore.api.offers import CheckOffer, Finding, MetricOffer, PanelOffer, Sample
from nvcore.testing.contract import broken, calling
from nvcore.testing.host import HostKit

__all__ = ["look", "look_on_fakes", "samples"]

_SEVERITIES: Final = ("ok", "note", "warning", "error")
_METRIC: Final = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)

Offers = Mapping[str, Iterable[tuple[Any, Any]]]


def look(offers: Offers, when: str = "") -> None:
    """Every panel, check and metric, once. Offers by hook, each behind its module; when: for the text, as in " with a GPU lost"."""
    for module, panel in offers.get("nvcore_status_panels", ()):
        _check_panel(panel, module.__name__, when)
    for module, check in offers.get("nvcore_doctor_checks", ()):
        _check_check(check, module.__name__, when)
    for module, metric in offers.get("nvcore_metrics", ()):
        samples(metric, module.__name__, when)


def look_on_fakes(offers: Offers, beside: Sequence[Any] = (), **options: Any) -> None:
    """The same where there is something to see: while the plugin's clients drive two fake GPUs, and after one of these was lost. A client
    that does not come up there is told: with none, a panel of nothing would pass. beside, options: of the host, as of HostKit."""
    clients = {offer: module.__name__ for module, offer in offers["nvcore_client_drivers"]}
    with TemporaryDirectory(prefix="nvcore-contract-") as folder:
        kit = HostKit(*clients, *beside, state_dir=Path(folder), gpus=2, **options)
        try:
            kit.start()
            for offer, who in clients.items():
                problem = kit.host.problems.get(offer.name)
                if problem is not None:
                    broken("module-clients", who, f"{offer.name} failed on a fake GPU: {problem}; see what check_client says of it")
            look(offers, " with two GPUs up")
            kit.lose()
            look(offers, " with a GPU lost")
        finally:
            kit.close()


def _check_panel(panel: PanelOffer, who: str, when: str) -> None:
    if not isinstance(panel.schema, str) or not panel.schema or not isinstance(panel.order, int):
        broken("module-panel", who, f"schema {panel.schema!r} and order {panel.order!r} of {panel.name}; they are a text and a number")
    with calling("module-panel", who, f"reading the columns of {panel.name}"):
        columns = [tuple(column) for column in panel.columns]
    keys = [column[0] for column in columns if column]
    if any(len(column) != 3 or column[2] not in ("left", "right") for column in columns) or len(set(keys)) != len(keys):
        said = "each is a key, a heading and left or right, and each key is there once"
        broken("module-panel", who, f"columns of {panel.name}: {panel.columns}; {said}")
    with calling("module-panel", who, f"snapshot() of {panel.name}{when}"):
        rows = panel.snapshot()
        json.dumps(rows, allow_nan=False)
    if not isinstance(rows, list | tuple):
        broken("module-panel", who, f"snapshot() of {panel.name} gave {rows!r}{when}, which is no list of rows")
    for row in rows:
        if not isinstance(row, dict):
            broken("module-panel", who, f"a row of {panel.name} is a {type(row).__name__}{when}")
        missing = [key for key in keys if key not in row]
        if missing:
            broken("module-panel", who, f"a row of {panel.name} has no {', '.join(missing)}{when}; it has {', '.join(row) or 'nothing'}")


def _check_check(check: CheckOffer, who: str, when: str) -> None:
    with calling("module-check", who, f"check {check.name}{when}"):
        findings = list(check.run())
    for finding in findings:
        if not isinstance(finding, Finding):
            broken("module-check", who, f"check {check.name} gave a {type(finding).__name__}{when}")
        if finding.severity not in _SEVERITIES:
            seen = f"check {check.name} gave severity {finding.severity!r}{when}; severities are {', '.join(_SEVERITIES)}"
            broken("module-check", who, seen)
        words = (finding.text, finding.code, finding.remedy)
        if not finding.text or not all(isinstance(word, str | None) for word in words):
            broken("module-check", who, f"check {check.name} gave text, code and remedy {words}{when}")


def samples(metric: MetricOffer, who: str, when: str = "") -> list[Sample]:
    """What a metric gives; raises BrokenContract where that is not what its offer says."""
    if metric.kind not in ("gauge", "counter") or not _named(metric.name):
        seen = f"metric {metric.name!r} of kind {metric.kind!r}; kinds are gauge and counter, names as in nvcore_vgpus"
        broken("module-metric", who, seen)
    if not isinstance(metric.labels, list | tuple) or not all(_named(label) for label in metric.labels):
        broken("module-metric", who, f"labels of {metric.name} are {metric.labels!r}; they are a list of names as in vgpu_type")
    with calling("module-metric", who, f"collect() of {metric.name}{when}"):
        found = list(metric.collect())
    known: set[tuple[str, ...]] = set()
    for sample in found:
        _check_sample(sample, metric, who, when)
        values = tuple(sample.labels[label] for label in metric.labels)
        if values in known:
            broken("module-metric", who, f"{metric.name} gave two samples with labels {dict(sample.labels)}{when}")
        known.add(values)
    return found


def _named(name: object) -> bool:
    return isinstance(name, str) and _METRIC.fullmatch(name) is not None


def _check_sample(sample: Any, metric: MetricOffer, who: str, when: str) -> None:
    if not isinstance(sample, Sample):
        broken("module-metric", who, f"{metric.name} gave a {type(sample).__name__}{when}")
    value, labels = sample.value, sample.labels
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        broken("module-metric", who, f"{metric.name} gave {value!r}{when}; leave out what is unknown")
    if metric.kind == "counter" and value < 0:
        broken("module-metric", who, f"{metric.name} gave {value!r}{when}; a counter counts from 0 up, what may fall is a gauge")
    if not isinstance(labels, Mapping) or set(labels) != set(metric.labels):
        has = ", ".join(map(str, labels)) if isinstance(labels, Mapping) else repr(labels)
        seen = f"labels {has or 'none'}{when}, declared are {', '.join(metric.labels) or 'none'}"
        broken("module-metric", who, f"a sample of {metric.name} has {seen}")
    if not all(isinstance(text, str) for text in labels.values()):
        broken("module-metric", who, f"a sample of {metric.name} has labels {dict(labels)}{when}; their values are text")
