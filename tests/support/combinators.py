"""Forms of every combinator, and which balancers each refuses."""

from mtljax.balancing import chain, every, ew, grouped, normalized, preferred, samo, uw

FORMS = {
    "chain": lambda balancer: chain(uw(), balancer),
    "preferred": lambda balancer: preferred(balancer, (2.0, 0.5, 1.0)),
    "normalized": lambda balancer: normalized(balancer, "average_norm"),
    "every": lambda balancer: every(balancer, 3),
    "grouped": lambda balancer: grouped(balancer, "stage"),
    "samo": lambda balancer: samo(balancer, rho=0.05),
}
IDENTITIES = {
    "chain": lambda balancer: chain(ew(), balancer),
    "preferred": lambda balancer: preferred(balancer, (1.0, 1.0, 1.0)),
    "normalized": lambda balancer: normalized(balancer, "none"),
    "every": lambda balancer: every(balancer, 1),
    "grouped": lambda balancer: grouped(balancer, "all"),
    "samo": lambda balancer: samo(balancer, rho=0.0),
}
"""The same with settings that change nothing."""

READ_LOSSES = {
    *("ew", "fixed", "si", "gls", "uw", "uw_so", "imtl_l", "dwa", "rlw", "famo", "go4align"),
    *("chebyshev", "stch", "pbi", "cosmos", "auto_lambda", "moml", "ldc_mtl", "igb", "hypervolume"),
}
READ_SAMPLES = {"sdmgrad", "modo", "auto_lambda", "moml", "forum"}
GIVE_DIRECTIONS = {"graddrop", "trimmed_mean", "moco", "db_mtl", "sam_gs", "mocograd"}
REFUSED = {
    "chain": READ_SAMPLES,
    "preferred": {
        *("uw", "uw_so", "imtl_l", "dwa", "rlw", "famo", "go4align", "krum", "modo"),
        *("excess_mtl", "auto_lambda", "moml", "forum", "ldc_mtl", "pcd"),
        *GIVE_DIRECTIONS,
    },
    "normalized": READ_LOSSES | READ_SAMPLES,
    "every": GIVE_DIRECTIONS | {"famo"},
    "samo": READ_SAMPLES | {"consmtl"},
    "grouped": {
        *("excess_mtl", "gradnorm", "dibs_mtl", "consmtl", "epo"),
        *(READ_LOSSES | READ_SAMPLES | GIVE_DIRECTIONS),
    },
}
"""Combinator -> balancers that it refuses; every other pair runs."""
