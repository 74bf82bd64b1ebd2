"""Secure aggregation: the server learns the sum of a cohort's vectors and nothing else about them.

The protocol of Bonawitz et al. 2017 (CCS, 10.1145/3133956.3133982) on a k-regular graph of neighbours as in Bell et al.
2020 (CCS, IACR eprint 2020/704), in five idempotent phases:

========= ==================================================== =========================================================
phase     a device sends                                       result
========= ==================================================== =========================================================
keys      two fresh X25519 keys, signed by its identity        senders can be paired with others
shares    sealed shares of its two secrets, one a neighbour    senders may drop out from here on
masked    vector + own mask + pair masks, modulo 2^bits        senders are in the sum: the survivors
confirm   a signature of the set of survivors                  all devices agree on one set
unmask    a share for each neighbour: of the own mask of a     the server removes the remaining masks
          survivor, or of the pair masks of one that dropped
========= ==================================================== =========================================================

Plain data and pure functions, without network or clock; only `messages` uses Flower records.
"""
