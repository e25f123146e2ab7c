"""`rlbilinear doctor` tells what is missing from what is not needed here."""

import sys
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from rlbilinear.commands import doctor


def test_every_required_package_is_found_in_a_version_that_is_supported():
    found = {finding.subject: finding for finding in doctor.packages()}
    assert not [finding for finding in found.values() if finding.problem]
    assert found["torch"].found == version("torch") and "huggingface-hub" not in found
    assert any(finding.subject == "hub: huggingface-hub" for finding in doctor.extras())


@pytest.mark.parametrize(
    ("asked", "words"),
    [("numpy>=900", "is not supported; pip install 'numpy>=900'"), ("nothing-of-it", "missing")],
)
def test_what_is_wrong_with_a_package(asked, words):
    finding = doctor.installed(Requirement(asked), needed=True)
    assert words in finding.found and finding.problem
    assert not doctor.installed(Requirement(asked), needed=False).problem


@pytest.mark.parametrize("asked", ["procgen==0.10.7", "procgen-mirror==0.10.7", "torch"])
def test_the_simulator_is_needed_only_where_it_has_wheels(asked, monkeypatch):
    monkeypatch.setattr(doctor, "requirements", lambda extra="": [Requirement(asked)])
    monkeypatch.setitem(sys.modules, "procgen", None)  # as where it is not installed
    (finding,) = doctor.simulator()
    assert finding.problem == asked.startswith("procgen")
    assert "is not installed: pip install 'rlbilinear[procgen]'" in finding.found
