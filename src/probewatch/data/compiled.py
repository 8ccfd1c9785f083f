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
if "NUMBA_OPT" not in os.environ:  # the code is as fast as at LLVM's third level, and there in two thirds of the time
    _settings["OPT"] = type(_settings["OPT"])(2)
if not _settings["CACHE_DIR"]:
    _sources = b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in SOURCES)
    _cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "probewatch"
    _settings["CACHE_DIR"] = str(_cache / hashlib.sha256(_sources).hexdigest()[:16])

# Sums may be reordered, which lets them run in vector registers; the order is then fixed in the compiled
# code, the same for every call, so prefixes stay bit-equal. NaN keeps its meaning. Compiled code allocates nothing:
# without Numba's runtime (nrt) it counts no references, and two atomic additions for each of the step's forty arrays
# would take longer than the step itself.
_options: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz"}, "_nrt": False}
_options |= {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
compiled = numba.njit(cache=True, **_options)  # what Python calls

# What compiled code calls: no door to Python, no copy of its own in the cache. LLVM goes once more over all that a
# function calls, so those that call many others are taken into their caller before it begins.
inner = numba.njit(no_cpython_wrapper=True, **_options)
inlined = numba.njit(inline="always", **_options)
