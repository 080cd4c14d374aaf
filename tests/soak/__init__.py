"""All faults and all of ordinary life at random, under traffic: `python -m tests.soak --minutes N`.

Two processes talk to each other: the program, with tunnelled sockets, and its peers, with plain
ones. Between them are two SSH servers, one of which closes channels first, each behind a link that
can be broken. Every message is in a ledger. Lost may be what ZeroMQ itself would have lost: what a
session had taken when it was killed, which is one piece of each way; and for PUB/SUB what was
published while the subscriber was away. Nothing may come twice, nothing out of order; no session
may be lost while nothing is wrong; after each fault all busy patterns must be back within 5 s. At
the end nothing may be left, and no gateway may have grown.
"""
