"""The test kit: real peers, real processes and short forms. `tests/README.md` says what there is for which job.

One rule: nothing here repairs or guesses. What a peer sent is kept as raw bytes, and a message that breaks RFC 9112
raises instead of being read leniently.
"""

from __future__ import annotations
