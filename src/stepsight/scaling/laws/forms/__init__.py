"""The shapes a law may have. Adding one is writing a `LogForm` in a file here and naming it in
`FORMS`; fits, intervals, diagnosis and the command take it from there."""

from __future__ import annotations

from stepsight.errors import UserError, suggest
from stepsight.scaling.fitting.form import Array, LogForm
from stepsight.scaling.laws.forms.broken import BROKEN
from stepsight.scaling.laws.forms.effective import EFFECTIVE
from stepsight.scaling.laws.forms.kaplan import KAPLAN
from stepsight.scaling.laws.forms.shifted import SHIFTED
from stepsight.scaling.laws.forms.sums import SUMS

__all__ = ["FORMS", "Array", "LogForm", "find_form"]

FORMS: dict[str, LogForm] = {
    form.name: form for form in (*SUMS, *EFFECTIVE, SHIFTED, BROKEN, KAPLAN)
}


def find_form(name: str) -> LogForm:
    """The form of that name.

    Raises:
        UserError: there is none.
    """
    if name not in FORMS:
        raise UserError(f"There is no form '{name}'.{suggest(name, FORMS)}")
    return FORMS[name]
