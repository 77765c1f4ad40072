"""A world around the real `gateway.memory` and `gateway.fanout.delivery`, in which everything goes wrong.

Redis, connections, clients and faults are simulated as simply as possible (`server`, `client`, `world`). What a
worker knows and writes is the gateway's own code (`worker`). Nothing here waits for real time: whoever waits is a
generator that is resumed when what it waits for has happened, and perhaps later. Beyond the reference model this
world has the spacing of ticks, "who heard everything?", a clock that refuses, answers in two steps (ranges, then
events), messages that are counted and rejected, ids as text (`17~2.…` included), reads in batches, and small or
missing rings.
"""
