"""The secure sum: a server learns the sum of a cohort's vectors, and nothing else about any of them.

Bonawitz et al. 2017 (CCS, 10.1145/3133956.3133982) on a k-regular graph of neighbours as in Bell et al. 2020
(arXiv/eprint 2020/704), in five idempotent phases:

========= ==================================================== =========================================================
phase     a device sends                                       afterwards
========= ==================================================== =========================================================
keys      two fresh X25519 keys, signed by its identity        who has sent keys may be paired with
shares    sealed shares of its two secrets, one a neighbour    who has sent shares can be replaced if it drops out
masked    vector + own mask + pair masks, modulo 2^bits        who has sent this is in the sum: the survivors
confirm   a signature of the set of survivors                  a server cannot tell two devices two sets
unmask    a share for each neighbour: of the own mask of a     the server removes what does not cancel
          survivor, or of the pair masks of one that dropped
========= ==================================================== =========================================================

Everything here is plain data and functions of it: no network, no clock, no Flower.
"""
