"""Waiting in queues: Erlang's formula for c servers, and what service times of another kind make of it.

Arrivals are Poisson at ``rate`` a second; ``c`` servers, each busy ``service_s`` seconds on the average with one
arrival; a = rate * service_s is the load offered, a / c the utilisation.

- Erlang C: the chance that an arrival has to wait in M/M/c, by way of Erlang B's recursion (A. K. Erlang 1917; Gross,
  Shortle, Thompson, Harris: Fundamentals of Queueing Theory, 4th ed., 2.3 and 2.4).
- M/G/c: the mean wait is that of M/M/c times (1 + cv2) / 2, cv2 the squared coefficient of variation of the service
  time (Lee and Longton 1959; Allen, Probability, Statistics and Queueing Theory, 5.3). Exact for one server
  (Pollaczek and Khinchine) and for M/M/c, an approximation else.
- the wait's tail: exponential with that mean, as in M/M/c, where it is exact: P(W > t) = C exp(-C t / mean wait).
"""

from __future__ import annotations

import math


def erlang_c(servers: int, offered: float) -> float:
    """The chance that an arrival waits, in M/M/c; 1 where the load offered is as much as the servers can take."""
    if servers < 1 or offered < 0:
        raise ValueError("there is at least one server, and no load below nothing")
    if offered >= servers:
        return 1.0
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def mean_wait_s(rate: float, service_s: float, servers: int = 1, cv2: float = 1.0) -> float:
    """Mean seconds in the queue; infinite where more comes than can be served."""
    offered = rate * service_s
    if offered >= servers:
        return math.inf
    return erlang_c(servers, offered) * service_s / (servers - offered) * (1 + cv2) / 2


def wait_percentile_s(share: float, rate: float, service_s: float, servers: int = 1, cv2: float = 1.0) -> float:
    """Seconds within which this share (0.99) of arrivals leave the queue; 0 where fewer than the rest wait at all."""
    if not 0 <= share < 1:
        raise ValueError("a share lies from 0 to below 1")
    mean = mean_wait_s(rate, service_s, servers, cv2)
    if math.isinf(mean) or mean == 0:
        return mean
    waits = erlang_c(servers, rate * service_s)
    return max(0.0, math.log(waits / (1 - share)) * mean / waits)
