"""Bounds, closed forms and estimators behind a plan: mathematics only, in numpy and scipy.

Derived for this project from the models of Yan and Li, arXiv 2403.20075 (P1: exact averaging, adaptive local
rounds) and arXiv 2308.06496 (P2: gossip, digital and analog); equations are numbered in docs/theory.md.
Every bound here is loose: used to rank choices, not to predict losses.
"""
