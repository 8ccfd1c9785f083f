"""Every exception that Probewatch raises on purpose.

::

    ProbewatchError
    ├── LogError (ValueError)        a query log cannot be read
    │   └── MappingError             its fields are not known, or the mapping names the wrong ones
    ├── LabelError (ValueError)      a labels or allow-list file cannot be used
    ├── DataError (ValueError)       too little data, one class only, empty or non-finite sequences
    ├── ConfigError (ValueError)     a preset, option or configuration file is wrong
    ├── BundleError (ValueError)     a saved detector is damaged, of an unknown version, or does not fit the log
    ├── ProfileError (ValueError)    a model's profile cannot be made, is damaged, or its key does not fit
    ├── OutputError (OSError)        a result, or a scratch file on the way to it, cannot be written
    ├── TrainingError (ArithmeticError)  training met a loss or score that is not finite
    └── TargetError (RuntimeError)   an attacked model gives no answer, or one that is not probabilities

The message is one sentence: what is wrong, the value found, what was expected, what to do.
"""


class ProbewatchError(Exception):
    """Base of every error that Probewatch raises on purpose."""


class LogError(ProbewatchError, ValueError):
    """A query log cannot be read."""


class MappingError(LogError):
    """The fields of a log are not known, or the mapping names the wrong ones."""


class LabelError(ProbewatchError, ValueError):
    """A labels file or allow-list cannot be used."""


class DataError(ProbewatchError, ValueError):
    """Too little data, one class only, or sequences that are empty or not finite."""


class ConfigError(ProbewatchError, ValueError):
    """A preset, an option or a configuration file is wrong; all its mistakes are named at once."""


class BundleError(ProbewatchError, ValueError):
    """A saved detector is damaged, of an unknown version, or does not fit the log."""


class ProfileError(ProbewatchError, ValueError):
    """A model's profile cannot be made, is damaged, or its key is missing or another's."""


class OutputError(ProbewatchError, OSError):
    """A result, or a scratch file on the way to it, cannot be written."""


class TrainingError(ProbewatchError, ArithmeticError):
    """Training met a loss or score that is not finite."""


class TargetError(ProbewatchError, RuntimeError):
    """An attacked model gives no answer, or one that is not probabilities."""
