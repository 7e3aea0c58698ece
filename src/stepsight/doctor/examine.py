"""All checks, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from stepsight.doctor import machine, runs, settings
from stepsight.doctor.findings import Finding
from stepsight.doctor.patient import Patient
from stepsight.errors import UserError

Check = Callable[[Patient], Finding]
CHECKS: dict[str, Check] = {  # the quick ones first
    "learning-rate": settings.learning_rate,
    "average": settings.average,
    "gradients": settings.reached,
    "memory": settings.memory,
    "disk": machine.disk,
    "data": machine.data,
    "kernels": machine.kernels,
    "tracker": machine.tracker,
    "processes": runs.processes,
    "resume": runs.resume,
}


def examined(patient: Patient, names: Sequence[str] = ()) -> Iterator[Finding]:
    """The findings of some checks, or of all. A check that cannot be made is a finding too."""
    for name in names or CHECKS:
        patient.say(name)
        try:
            yield CHECKS[name](patient)
        except UserError as error:
            yield Finding(name, "fail", str(error), "Training would stop at its start.")
        except Exception as error:  # the other checks are still worth making
            said = f"could not be made: {type(error).__name__}: {error}"
            yield Finding(name, "fail", said, "A fault of this program or of the machine.")
