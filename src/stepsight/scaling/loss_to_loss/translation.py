"""A law of parameters and samples carried to another loss by a relation."""

from __future__ import annotations

from dataclasses import replace

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw
from stepsight.scaling.loss_to_loss.relation import Relation


def translate(law: TrainingLaw, relation: Relation) -> TrainingLaw:
    """The law of the other loss, on the data that the relation leads to (the paper's appendix).

    alpha kappa, beta kappa, A K^(1 / (alpha kappa)), B K^(1 / (beta kappa)), E1. Exact for the
    Kaplan form, whose A and B are scales of N and D; G and the optimal model stay as they are. In
    the Chinchilla form A and B carry their exponents, and become K A^kappa and K B^kappa: exact
    where one of the two terms outweighs the other, in between an approximation.

    Raises:
        UserError: kappa or K is not positive, so that no falling law comes out.
    """
    K, kappa = relation.K, relation.kappa
    if not (K > 0 and kappa > 0):
        raise UserError(f"A relation with K = {K:g}, kappa = {kappa:g} translates no law.")
    alpha, beta = law.alpha * kappa, law.beta * kappa
    if law.form == "kaplan":
        A, B = law.A * K ** (1 / alpha), law.B * K ** (1 / beta)
    else:
        A, B = K * law.A**kappa, K * law.B**kappa
    return replace(law, E=relation.E1, A=A, alpha=alpha, B=B, beta=beta)
