"""Elementary functions as arithmetic: they need no library, and vectors are made of them.

exp, expm1, tanh, erf, log and log1p are within 4 units in the last place of f32 for every number, others within a few;
all are right for NaN, infinities and numbers without a logarithm.
"""
