"""Trees that spare whom little is left: joules weighed by what they are of the payer's remainder."""

from dataclasses import replace

import numpy as np

from coordinator.schedule.costs import Answers, Floats, LinkCosts


def budget_weights(costs: LinkCosts, joules_left: Floats) -> LinkCosts:
    """Return the link costs as shares of what their payer has left: trees and rings of these are fairer.

    joules_left, shape (n,), is positive for all who take part: leave the others out first. An edge of the
    minimum spanning tree then weighs tx_ij / E_i + tx_ji / E_j and the like for receiving. Derived for this
    project from the model of Yan and Li, arXiv 2403.20075.
    """
    assert (joules_left[costs.devices] > 0).all(), "who has nothing left cannot take part"
    left = np.where(joules_left > 0, joules_left, 1.0)
    answers = costs.answers
    if answers is not None:
        answers = Answers(tx_j=answers.tx_j / left[None, :], rx_j=answers.rx_j / left[:, None])
    return replace(costs, tx_j=costs.tx_j / left[:, None], rx_j=costs.rx_j / left[None, :], answers=answers)
