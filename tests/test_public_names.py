import subprocess
import sys

import pytest

import probewatch


def _run(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    loaded = _run("import sys, probewatch; dir(probewatch); print(*sys.modules)")
    assert not {"torch", "numba", "duckdb", "pyarrow", "onnxruntime", "sklearn", "numpy"} & set(loaded)


@pytest.mark.parametrize("name", sorted(set(probewatch.__all__) - {"__version__"}))
def test_every_public_name_is_there_and_is_the_one_of_its_module(name):
    assert getattr(probewatch, name) is getattr(sys.modules[probewatch._HOMES[name]], name)
    assert name in dir(probewatch)


def test_only_public_names_are_listed():
    assert dir(probewatch) == sorted(probewatch.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error_that_lists_those_that_are():
    with pytest.raises(AttributeError, match=r"no attribute 'read_log', expected one of: .*read_logs"):
        _ = probewatch.read_log


def test_without_the_training_extra_the_classifier_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import probewatch; probewatch.Ragged; probewatch.read_logs; probewatch.Scorer\n"
        "try: probewatch.SequenceClassifier\n"
        "except ImportError as error: print(error)\n"
    )
    assert " ".join(_run(code)) == (
        "probewatch.SequenceClassifier needs torch, which this host lacks;"
        " install it with: pip install 'probewatch[train]'."
    )
