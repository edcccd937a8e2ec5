"""What a polite load test leaves out.

Chapter: 20
Level: ★★
Learn: coordinated omission: the clock starts when a request is due
Source: Schroeder et al. (2006); chapter 20
"""

import numpy as np


def waiting(due, service):
    """Return the times from *due* to done and from *sent* to done, two arrays (n,).

    One connection sends n requests in order. due: (n,), rising moments at which they should be
    sent. Each is sent when it is due, or later, when the one before is done. service: (n,), how
    long each takes from sent to done.
    """
    raise NotImplementedError
