"""Messages for tests: every field has a plain default, so that a test says only what it is about."""

from protocol.messages import Heard, Neighbour, Prospect, Ready, Report, Spent, Stages, Start


def make_stages(**changes):
    """Return the stages of a round that took no time, unless changed."""
    return Stages(**(dict.fromkeys(Stages.model_fields, 0.0) | changes))


def make_spent(**changes):
    """Return what a round cost a device that did nothing, unless changed."""
    return Spent(**(dict.fromkeys(Spent.model_fields, 0.0) | changes))


def make_heard(**changes):
    """Return ten packets either way, all of them mixed, at no cost, unless changed."""
    usual = {
        "packets_sent": 10,
        "packets_resent": 0,
        "attempts": 1,
        "packets_corrupted": 0,
        "packets_lost": 0,
        "bit_errors": 0,
        "tx_air_s": 0.0,
        "rx_air_s": 0.0,
        "tx_j": 0.0,
        "rx_j": 0.0,
    }
    return Heard(**(usual | changes))


def make_report(device=0, round_=0, **changes):
    """Return a round that was trained, not evaluated, and in which nobody was heard, unless changed."""
    usual = {
        "run_id": "run-1",
        "loss": 1.0,
        "accuracy": None,
        "test_loss": None,
        "bytes_sent": 0,
        "heard": {},
        "dropped": {},
        "spent": make_spent(),
        "wall_s": 0.0,
        "stages_wall_s": make_stages(),
    }
    return Report(device=device, round=round_, **(usual | changes))


def make_ready(device=0, **changes):
    """Return what a device says that is ready to take part, unless changed."""
    usual = {
        "address": f"tcp://host:{device}",
        "schema_hash": "a",
        "num_parameters": 10,
        "payload_bytes": 40,
        "num_samples": 5,
    }
    return Ready(**(usual | changes))


def make_neighbour(device=1, **changes):
    """Return a neighbour in its first life, at the origin, in the slot of its own number, unless changed."""
    usual = {
        "incarnation": 0,
        "address": f"tcp://host:{device}",
        "weight": 0.5,
        "mean_snr_db": 20.0,
        "mean_snr_there_db": 20.0,
        "slot": device,
        "turn": 0,
        "position_m": (0.0, 0.0),
    }
    return Neighbour(device=device, **(usual | changes))


def make_prospect(**changes):
    """Return what a device reckons with that does five local rounds and pays nothing, unless changed."""
    usual = {
        "local_rounds": 5,
        "mean_local_rounds": 5.0,
        "exchange_j": 0.0,
        "exchange_air_s": 0.0,
        "waiting_air_s": 0.0,
    }
    return Prospect(**(usual | changes))


def make_start(*neighbours, **changes):
    """Return the row of device 0, with as many slots as its neighbours and itself need, unless changed."""
    usual = {
        "slot": 0,
        "num_slots": 1 + max((neighbour.slot for neighbour in neighbours), default=0),
        "max_degree": max(len(neighbours), 1),
        "position_m": (0.0, 0.0),
        "prospect": make_prospect(),
    }
    return Start(neighbours=neighbours, **(usual | changes))
