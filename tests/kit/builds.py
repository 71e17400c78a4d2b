"""Which build the tests run on (`deploy/compiled.py`), and what a test of one build has to say.

One rule: what is left out on the compiled build is what replaces a function inside it: compiled code calls its own
functions directly. What a client, a backend or an operator can see is tested on both.
"""

from __future__ import annotations

import pytest

from edge.cli.build_kind import build_kind

IS_COMPILED = build_kind() == "compiled"
pure_only = pytest.mark.skipif(IS_COMPILED, reason="replaces what compiled code calls directly")
