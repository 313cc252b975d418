"""Who sends the model to whom in one aggregation, and what that costs: pure functions of link costs."""
