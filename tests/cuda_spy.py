"""Preloaded before all else by the fork server of a test: it notes who wakes CUDA up."""

import torch

woken = []


def _noting(name, asked):
    def note(*args, **kwargs):
        woken.append(name)
        return asked(*args, **kwargs)

    return note


for _name in ("_lazy_init", "init", "is_available", "device_count", "current_device"):
    setattr(torch.cuda, _name, _noting(_name, getattr(torch.cuda, _name)))
