"""The rules on the structure of the code, and for each of them a piece of code that breaks it."""

import ast
import dataclasses
import fnmatch
import functools
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from paths import ROOT

PACKAGE = "tf_simclr"

# Modules from the top to the bottom. Imports point down this list or stay among siblings of one subpackage.
# Only the programs, in the third line, may use what stands beside them.
# Names are relative to the package ("" is its `__init__`), but for the programs outside of it.
LAYERS = (
    ("run", "configs.*", "benchmarks.*"),
    ("",),
    ("report*",),
    ("check*", "compare", "embeddings*", "stages"),
    ("program",),
    ("export*",),
    ("evaluation*",),
    ("training*",),
    ("runs*",),
    ("builders*",),
    ("settings*",),
    (
        "models", "models.simclr", "models.momentum", "models.classifier", "models.distiller", "models.trainer",
        "models.inputs", "models.serialization", "models.arguments", "data*",
    ),
    (
        "losses*", "augment*", "metrics*", "models.*", "distribute*", "optimizers", "schedules", "gradient_cache",
    ),
    ("parquet", "activation_memory"),
    ("files", "devices", "keras"),
)  # fmt: skip
# The same for the rooms of the data.
DATA_ROOMS = ("data.quality*", "data.batches*", "data.sources*", "data.files*", "data.formats*")
PROGRAMS = ("training*", "evaluation*", "export*", "check*", "embeddings*", "report*", "stages")
LEAVES = LAYERS[-3]
FOUNDATIONS = LAYERS[-2] + LAYERS[-1]
READERS_OF_SETTINGS = (*LAYERS[0], *PROGRAMS, "runs*", "builders*", "settings*")
BLIND_TO_NAMES = ("losses*", "models*", "optimizers", "schedules", "metrics*", "gradient_cache")

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclasses.dataclass(frozen=True)
class Module:
    """A parsed file: `name` is as in LAYERS, `parent` the package that its relative imports start from."""

    path: str
    name: str
    parent: str
    in_package: bool
    text: str
    tree: ast.Module


def parse(path: str, text: str) -> Module:
    """Parses the text of the file at `path`, relative to the root of the repository."""
    parts = pathlib.PurePath(path).with_suffix("").parts
    parent = ".".join(parts[:-1])
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    in_package = parts[0] == PACKAGE
    return Module(path, ".".join(parts[in_package:]), parent, in_package, text, ast.parse(text, path))


@functools.cache
def modules() -> tuple[Module, ...]:
    """Everything that is there by now but the tests."""
    files = [ROOT / "run.py"]
    for folder in (PACKAGE, "configs", "benchmarks"):
        files += sorted((ROOT / folder).rglob("*.py"))
    existing = (file for file in files if file.is_file())
    return tuple(parse(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")) for file in existing)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def layer_of(name: str) -> int | None:
    """The layer that names the module itself, or else the one whose pattern it fits."""
    exact = [number for number, patterns in enumerate(LAYERS) if name in patterns]
    fitting = [number for number, patterns in enumerate(LAYERS) if matches(name, patterns)]
    return next(iter(exact + fitting), None)


def imported_names(module: Module) -> Iterator[tuple[int, str]]:
    """All that is imported, at any depth of the file, as (line, "package.module.name")."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.parent.split(".")[: len(module.parent.split(".")) - node.level + 1]
            base = ".".join([*parents, *filter(None, [node.module])] if node.level else [node.module or ""])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes that starts at a plain name; empty for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    base = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{base}.{node.attr}" if base else ""


def uses(module: Module) -> Iterator[tuple[int, str]]:
    """Imported names and chains of attributes, with `tf` written out."""
    yield from imported_names(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and (chain := dotted(node)):
            yield node.lineno, f"tensorflow{chain[2:]}" if chain.startswith("tf.") else chain


def package_imports(module: Module) -> Iterator[tuple[int, str]]:
    """The modules of this package that it imports, named as in LAYERS."""
    for line, name in imported_names(module):
        if name.split(".")[0] != PACKAGE:
            continue
        parts = name.split(".")[1:]
        # What is imported from a module is a name in it, unless it is a module of a layer itself.
        known = [".".join(parts[:end]) for end in range(len(parts) + 1)]
        files = [end for end, candidate in enumerate(known) if is_module(candidate)]
        yield line, known[max(files)]


def is_module(name: str) -> bool:
    """Whether a module is of this name: in a layer by its whole name, or a file in the package."""
    path = ROOT.joinpath(PACKAGE, *filter(None, name.split(".")))
    return any(name in patterns for patterns in LAYERS) or path.with_suffix(".py").is_file() or path.is_dir()


def upward_imports(module: Module) -> Iterator[str]:
    """Arrows that do not point down."""
    source = layer_of(module.name)
    if source is None:
        yield f"1: {module.name} is in no layer: give it one in LAYERS"
        return
    subpackage = module.name.split(".")[0]
    for line, name in package_imports(module):
        target = layer_of(name)
        may_stay = not module.in_package or name.split(".")[0] == subpackage
        if target is None:
            yield f"{line}: {name} is in no layer: give it one in LAYERS"
        elif target < source:
            yield f"{line}: {module.name or PACKAGE} imports {name or PACKAGE}, which is above it"
        elif target == source and not may_stay:
            yield f"{line}: {module.name or PACKAGE} imports {name or PACKAGE}, which is beside it"


def upward_imports_of_data(module: Module) -> Iterator[str]:
    """Arrows between the rooms of the data that do not point down."""

    def room_of(name: str) -> int | None:
        return next((number for number, room in enumerate(DATA_ROOMS) if fnmatch.fnmatchcase(name, room)), None)

    source = room_of(module.name)
    for line, name in package_imports(module) if source is not None else ():
        target = room_of(name)
        if target is not None and target < source:
            yield f"{line}: {module.name} imports {name}, which is above it"


def asks_what_a_source_is(module: Module) -> Iterator[str]:
    """Tests for the class of a source where only its contract should count."""
    for node in ast.walk(module.tree) if module.in_package and not matches(module.name, ("data.sources*",)) else ():
        if isinstance(node, ast.Call) and dotted(node.func) == "isinstance" and "Source" in ast.unparse(node.args[1]):
            yield f"{node.lineno}: {ast.unparse(node)}"


def imports_of_leaves(module: Module) -> Iterator[str]:
    """What a leaf module imports of the package besides the foundations and its siblings."""
    if layer_of(module.name) != LAYERS.index(LEAVES):
        return
    for line, name in package_imports(module):
        if name not in FOUNDATIONS and name.split(".")[0] != module.name.split(".")[0]:
            yield f"{line}: {module.name} is a leaf, but imports {name or PACKAGE}"


def imports_of_settings(module: Module) -> Iterator[str]:
    """What the settings import of the package: nothing."""
    for line, name in package_imports(module) if module.name.split(".")[0] == "settings" else ():
        if name.split(".")[0] != "settings":
            yield f"{line}: {module.name} is about settings, but imports {name or PACKAGE}"


def readers_of_settings(module: Module) -> Iterator[str]:
    """Imports of the settings by a module that should take plain arguments."""
    for line, name in package_imports(module):
        if name.split(".")[0] == "settings" and not matches(module.name, READERS_OF_SETTINGS):
            yield f"{line}: {module.name or PACKAGE} imports the settings"


def flags_elsewhere(module: Module) -> Iterator[str]:
    """Uses of absl.flags outside of the command line's two modules."""
    if module.name not in ("run", "settings.command_line"):
        yield from (f"{line}: {name}" for line, name in uses(module) if f"{name}.".startswith("absl.flags."))


def asserts_and_prints(module: Module) -> Iterator[str]:
    """An error is raised, since `assert` is gone under -O; a message is logged, but by what `python -m` shows."""
    for node in ast.walk(module.tree) if module.in_package else ():
        if isinstance(node, ast.Assert):
            yield f"{node.lineno}: assert"
        elif isinstance(node, ast.Call) and dotted(node.func) == "print" and module.name != "program":
            yield f"{node.lineno}: print"


def what_only_a_terminal_shows(module: Module) -> Iterator[str]:
    """Bars that do not ask whether there is a terminal, and colours, which NO_COLOR and files do without."""
    for node in ast.walk(module.tree) if module.in_package or module.name == "run" else ():
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "tqdm":
            options = {keyword.arg for keyword in node.keywords}
            if "disable" not in options or "colour" in options:
                yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\x1b" in node.value:
            yield f"{node.lineno}: {ast.unparse(node)}"


def version_1_of_tensorflow(module: Module) -> Iterator[str]:
    """Uses of tf.compat.v1, but where an export is run as servers run it: in a session."""
    if module.name != "export.fresh_process":
        yield from (f"{line}: {name}" for line, name in uses(module) if ".compat.v1" in name)


def keras_elsewhere(module: Module) -> Iterator[str]:
    """Keras by any other way than tf_simclr/keras.py."""
    others = ("keras.", "tf_keras.", "tensorflow.keras.", "tensorflow.python.keras.")
    if module.name == "keras" and module.in_package:
        return
    for line, name in imported_names(module):
        if f"{name}.".startswith(others):
            yield f"{line}: {name}"
    for line, name in uses(module):
        if f"{name}.".startswith(("tensorflow.keras.", "tf_keras.")):
            yield f"{line}: {name}"


def runs_what_it_loads(module: Module) -> Iterator[str]:
    """Ways to load data that can run code from it. Config files are Python: the command line may import them."""
    libraries = ("pickle.", "cPickle.", "dill.", "cloudpickle.", "shelve.", "marshal.", "joblib.", "torch.")
    for line, name in imported_names(module):
        is_the_peer = name == "torch" and str(module.path) == "benchmarks/peers.py"
        if f"{name}.".startswith(libraries) and not is_the_peer:
            yield f"{line}: {name}"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        may_pickle = any(
            keyword.arg == "allow_pickle" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
            for keyword in node.keywords
        )
        is_import = called.endswith("exec_module") and module.name != "settings.command_line"
        loads_layers = called.endswith((".models.load_model", ".saving.load_model", ".load_from_config", "torch.load"))
        if called in ("eval", "exec", "compile", "__import__") or may_pickle or is_import or loads_layers:
            yield f"{node.lineno}: {ast.unparse(node)}"


def _has_name(node: ast.AST, known: set[str]) -> bool:
    """Whether the name or the path of a variable goes into the expression, by itself or by one of these."""
    return any(
        (isinstance(part, ast.Attribute) and part.attr in ("name", "path"))
        or (isinstance(part, ast.Name) and part.id in known)
        for part in ast.walk(node)
    )


def keyed_on_names(module: Module) -> Iterator[str]:
    """Names of variables that are compared, searched or taken apart, rather than shown."""
    if not (module.in_package and matches(module.name, BLIND_TO_NAMES)):
        return
    parts = ("startswith", "endswith", "find", "index", "count", "split", "rsplit", "partition", "rpartition")
    known: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assign) and _has_name(node.value, known):
            known |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Compare):
            found = any(_has_name(operand, known) for operand in [node.left, *node.comparators])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_part = node.func.attr in parts and _has_name(node.func.value, known)
            is_search = dotted(node.func).split(".")[0] in ("re", "fnmatch")
            found = is_part or (is_search and any(_has_name(argument, known) for argument in node.args))
        else:
            found = False
        if found:
            yield f"{node.lineno}: {ast.unparse(node)}"


def too_long(module: Module) -> Iterator[str]:
    """Modules and functions of the package that are too long to be read at once; docstrings are free."""
    if not module.in_package:
        return
    if (lines := len(module.text.splitlines())) > MAX_MODULE_LINES:
        yield f"1: the module has {lines} lines"
    for node in ast.walk(module.tree):
        if isinstance(node, _FUNCTIONS):
            first = node.body[0]
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= first.end_lineno - first.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {lines} lines"


_LONG_FUNCTION = "def f():\n    '''Says.'''\n" + "    x = 1\n" * MAX_FUNCTION_LINES

# A rule, the file and the text that break it, and how often.
VIOLATIONS = [
    (upward_imports, "tf_simclr/builders/model.py", "from tf_simclr.training import train"),
    (upward_imports, "tf_simclr/models/resnet.py", "from tf_simclr.models import simclr"),
    (upward_imports, "tf_simclr/models/heads.py", "from .simclr import SimCLR"),
    (upward_imports, "tf_simclr/data/batches/train.py", "def f():\n    import tf_simclr.builders as b"),
    (upward_imports, "tf_simclr/training/callbacks.py", "from tf_simclr import SimCLR"),
    (upward_imports, "tf_simclr/training/callbacks.py", "from .. import check"),
    (upward_imports, "tf_simclr/models/simclr.py", "from tf_simclr.data import batches"),
    (upward_imports_of_data, "tf_simclr/data/sources/base.py", "from tf_simclr.data import batches"),
    (upward_imports_of_data, "tf_simclr/data/files/broken.py", "from tf_simclr.data.sources import ArraySource"),
    (asks_what_a_source_is, "tf_simclr/training/train.py", "x = isinstance(source, sources.ArraySource)"),
    (asks_what_a_source_is, "tf_simclr/data/batches/train.py", "x = not isinstance(s, (FileSource, TfdsSource))"),
    (upward_imports, "tf_simclr/training/train.py", "from tf_simclr.evaluation import evaluate"),
    (upward_imports, "tf_simclr/runs/folder.py", "from tf_simclr.training import train"),
    (imports_of_settings, "tf_simclr/settings/command_line.py", "from tf_simclr.runs import weights"),
    (upward_imports, "tf_simclr/elsewhere.py", "import os"),
    (imports_of_leaves, "tf_simclr/losses/nt_xent.py", "from tf_simclr import distribute"),
    (imports_of_leaves, "tf_simclr/augment/views.py", "from ..settings import RunConfig"),
    (readers_of_settings, "tf_simclr/data/sources/base.py", "from tf_simclr.settings import DataConfig"),
    (readers_of_settings, "tf_simclr/models/simclr.py", "from tf_simclr import settings"),
    (flags_elsewhere, "tf_simclr/builders/model.py", "from absl import flags"),
    (flags_elsewhere, "tf_simclr/builders/model.py", "import absl.flags"),
    (flags_elsewhere, "configs/cifar10.py", "from absl.flags import FLAGS"),
    (asserts_and_prints, "tf_simclr/metrics/classification.py", "def f(x):\n    assert x"),
    (asserts_and_prints, "tf_simclr/metrics/classification.py", "print(1)"),
    (what_only_a_terminal_shows, "tf_simclr/evaluation/progress.py", "bar = tqdm(total=3)"),
    (what_only_a_terminal_shows, "tf_simclr/evaluation/progress.py", "tqdm.tqdm(total=3, disable=None, colour='red')"),
    (what_only_a_terminal_shows, "tf_simclr/evaluation/table.py", "name = f'\\x1b[1m{name}\\x1b[0m'"),
    (what_only_a_terminal_shows, "run.py", "print('\\033[31mwrong')"),
    (version_1_of_tensorflow, "tf_simclr/export/saved_model.py", "tf.compat.v1.Session"),
    (version_1_of_tensorflow, "run.py", "import tensorflow.compat.v1"),
    (version_1_of_tensorflow, "run.py", "from tensorflow.compat import v1"),
    (keras_elsewhere, "tf_simclr/metrics/classification.py", "x = tf.keras"),
    (keras_elsewhere, "tf_simclr/metrics/classification.py", "import tf_keras"),
    (keras_elsewhere, "tf_simclr/models/heads.py", "from keras import layers"),
    (keras_elsewhere, "run.py", "from tensorflow import keras"),
    (keras_elsewhere, "tf_simclr/export/saved_model.py", "from tensorflow.keras.layers import Dense"),
    (keyed_on_names, "tf_simclr/optimizers.py", "use = 'bias' in variable.name"),
    (keyed_on_names, "tf_simclr/optimizers.py", "import re\nuse = re.search('bn', variable.path)"),
    (keyed_on_names, "tf_simclr/optimizers.py", "use = variable.name.lower().startswith('head')"),
    (keyed_on_names, "tf_simclr/models/simclr.py", "name = layer.name\nuse = name == 'bias'"),
    (keyed_on_names, "tf_simclr/models/simclr.py", "use = [v for v in w if 'bn' not in v.name]"),
    (runs_what_it_loads, "tf_simclr/data/sources/shapes.py", "import pickle"),
    (runs_what_it_loads, "tf_simclr/data/sources/shapes.py", "def f():\n    from joblib import load"),
    (runs_what_it_loads, "tf_simclr/runs/weights.py", "import torch"),
    (runs_what_it_loads, "benchmarks/peers.py", "import torch\nweights = torch.load(path)"),
    (runs_what_it_loads, "tf_simclr/data/sources/open.py", "arrays = np.load(path, allow_pickle=True)"),
    (runs_what_it_loads, "tf_simclr/data/sources/open.py", "arrays = np.load(path, allow_pickle=trusted)"),
    (runs_what_it_loads, "tf_simclr/runs/weights.py", "model = keras.models.load_model(path)"),
    (runs_what_it_loads, "tf_simclr/builders/model.py", "spec.loader.exec_module(module)"),
    (runs_what_it_loads, "tf_simclr/settings/fields.py", "value = eval(text)"),
    (too_long, "tf_simclr/metrics/classification.py", _LONG_FUNCTION),
    (too_long, "tf_simclr/metrics/classification.py", "x = 1\n" * (MAX_MODULE_LINES + 1)),
]

COMPLIANT = [
    (
        upward_imports,
        "run.py",
        "from tf_simclr.settings import command_line\nfrom tf_simclr.training import train",
    ),
    (upward_imports, "configs/cifar10.py", "from tf_simclr.settings import RunConfig"),
    (upward_imports, "tf_simclr/__init__.py", "from tf_simclr.models import SimCLR\nfrom . import export"),
    (
        upward_imports,
        "tf_simclr/models/__init__.py",
        "from .resnet import resnet\nfrom .simclr import SimCLR",
    ),
    (upward_imports, "tf_simclr/export/saved_model.py", "from tf_simclr.data.formats import decode"),
    (upward_imports, "tf_simclr/export/publish.py", "from tf_simclr.evaluation.features import extract"),
    (upward_imports_of_data, "tf_simclr/data/batches/train.py", "from tf_simclr.data import sources"),
    (upward_imports_of_data, "tf_simclr/data/quality/survey.py", "from tf_simclr.data import sources"),
    (asks_what_a_source_is, "tf_simclr/data/sources/cache.py", "x = isinstance(source, FileSource)"),
    (asks_what_a_source_is, "tf_simclr/training/train.py", "x = isinstance(model, SimCLR)"),
    (upward_imports, "tf_simclr/data/batches/train.py", "from tf_simclr.augment.crop import stateless_crop_boxes"),
    (imports_of_leaves, "tf_simclr/models/heads.py", "from ..keras import keras\nfrom .resnet import resnet"),
    (readers_of_settings, "tf_simclr/training/train.py", "from tf_simclr.settings import RunConfig"),
    (flags_elsewhere, "tf_simclr/settings/command_line.py", "from absl import flags"),
    (asserts_and_prints, "run.py", "print(1)"),
    (asserts_and_prints, "tf_simclr/program.py", "print(1)"),
    (what_only_a_terminal_shows, "tf_simclr/evaluation/progress.py", "tqdm(total=3, disable=not sys.stderr.isatty())"),
    (version_1_of_tensorflow, "tf_simclr/export/fresh_process.py", "tf.compat.v1.Session"),
    (keras_elsewhere, "tf_simclr/keras.py", "import tf_keras as keras"),
    (
        keras_elsewhere,
        "tf_simclr/metrics/classification.py",
        "from tf_simclr.keras import keras\nx = keras.layers.Dense",
    ),
    (
        keyed_on_names,
        "tf_simclr/optimizers.py",
        "results = {metric.name: metric.result() for metric in metrics}",
    ),
    (keyed_on_names, "tf_simclr/optimizers.py", "raise ValueError(f'{variable.name}: {variable.shape}')"),
    (runs_what_it_loads, "tf_simclr/settings/command_line.py", "spec.loader.exec_module(module)"),
    (runs_what_it_loads, "tf_simclr/data/sources/open.py", "arrays = np.load(path, allow_pickle=False)"),
    (runs_what_it_loads, "tf_simclr/training/train.py", "model = models.load_model(config, source)"),
    (too_long, "tf_simclr/metrics/classification.py", _LONG_FUNCTION.removesuffix("    x = 1\n")),
]

RULES = list(dict.fromkeys(rule for rule, _, _ in VIOLATIONS))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps(rule):
    assert any(module.name == "keras" for module in modules())
    found = [f"{module.path}:{text}" for module in modules() for text in rule(module)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("rule", "path", "text"), VIOLATIONS)
def test_a_violation_is_found(rule, path, text):
    assert list(rule(parse(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), COMPLIANT)
def test_what_keeps_a_rule_passes(rule, path, text):
    assert not list(rule(parse(path, text)))


_IMPORT_ALL = """
import importlib, pkgutil, sys
import tensorflow
from tensorflow.python.eager import context

def watch(event, arguments):
    if event == "socket.connect" or event == "open" and set(str(arguments[1])) & set("wax+"):
        raise SystemExit(f"{event}{arguments} while {module} was imported")

module = "tf_simclr"
sys.addaudithook(watch)
import tf_simclr
for found in pkgutil.walk_packages(tf_simclr.__path__, "tf_simclr."):
    module = found.name
    importlib.import_module(module)
    if context._context is not None and context._context._initialized:
        raise SystemExit(f"{module} touches a device when it is imported")
"""


def test_importing_touches_no_device_no_network_and_writes_nothing():
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", _IMPORT_ALL]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
