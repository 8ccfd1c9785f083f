"""How the features' code is compiled, and where the compiled code is kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba

# Compiled code goes to the user's cache folder, since the package's own may be shared or read-only; where that
# cannot be written either, Numba looks for another place. A folder for each state of the sources: Numba looks at the
# file that a function stands in, and not at those whose functions it has taken in.
SOURCES = ("compiled", "columns", "scales", "state", "sketches", "hashes", "step")
_settings = vars(numba.config)
if not _settings["CACHE_DIR"]:
    _sources = b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in SOURCES)
    _cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "probewatch"
    _settings["CACHE_DIR"] = str(_cache / hashlib.sha256(_sources).hexdigest()[:16])

# Sums may be reordered, which lets them run in vector registers; the order is then fixed in the compiled
# code, the same for every call, so prefixes stay bit-equal. NaN keeps its meaning. Compiled code allocates nothing:
# without Numba's runtime (nrt) it counts no references, and two atomic additions for each of the step's forty arrays
# would take longer than the step itself.
_options: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz"}, "_nrt": False}
compiled = numba.njit(cache=True, nogil=True, error_model="numpy", **_options)
