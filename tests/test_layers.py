"""The house rules of DESIGN.md: a file imports only from its own layer or below, without cycles."""

import ast
import subprocess
import sys
from pathlib import Path

import audioclf

PACKAGE = Path(audioclf.__file__).parent


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


LAYERS = [
    {
        "__init__",
        "errors",
        "checks",
        "config",
        "schedule",
        "bad_audio",
        "result",
        "accumulate",
        "interrupt",
        "allocator",
        "checkpoint",
        "distributed",
        "recipes",
    },
    {
        "audio",
        "sound_file",
        "augment",
        "effects",
        "fingerprint",
        "intervals",
        "levels",
        "pictures",
        "pieces",
        "metrics",
        "ranking",
        "runtime",
        "serving",
        "memory",
        "models.frontend",
        "models.frontend_fast",
        "models.waveform",
        "models.spectrogram",
        "models.heads",
        "models.dropout",
        "models.lora",
        "models.positional",
    },
    {"cache", "journal", "models.attention", "models.backbone", "models.loading", "models.hf", "models.losses"},
    {
        *{name_of(path) for path in (PACKAGE / "datasets").rglob("*.py")},
        *(
            "clips",
            "collate",
            "copies",
            "features",
            "findings",
            "mixup",
            "readers",
            "recordings",
            "sampling",
            "streams",
            "timeline",
            "models.classifier",
        ),
    },
    {"calibration", "figures", "optimizer", "soundness"},
    {
        *("evaluation", "export", "loaders", "inspection", "objective", "predictions", "progress", "review"),
        *("card", "hub", "report_page"),
    },
    {
        *("app", "explorer"),
        "reporting",
        "run",
        "resume",
        "output_folder",
        "step",
        "finish",
        "training",
        "foldstats",
        "crossval",
        "comparison",
        "inference",
        "inspecting",
        "onnx_export",
        "scoring",
    },
    {name_of(path) for path in (PACKAGE / "commands").rglob("*.py")},
    {"cli", "__main__"},
]


def imports_of(path: Path) -> set[str]:
    """Names of the package's own modules that a file imports, anywhere in it."""
    module = path.relative_to(PACKAGE).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = list(module[: len(module) - node.level])
            target = base + (node.module.split(".") if node.module else [])
            if (PACKAGE.joinpath(*target).with_suffix(".py")).exists():
                found.add(".".join(target))
            else:
                found |= {".".join([*target, alias.name]) for alias in node.names}
    found = {f"{name}.__init__" if PACKAGE.joinpath(*name.split(".")).is_dir() else name for name in found}
    return {"__init__" if name == "__version__" else name for name in found}


def modules() -> dict[str, Path]:
    return {name_of(path): path for path in PACKAGE.rglob("*.py")}


def test_every_module_has_a_layer():
    known = set().union(*LAYERS) | {"models.__init__"}
    assert set(modules()) <= known, set(modules()) - known


def test_imports_point_down():
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    for name, path in modules().items():
        for target in imports_of(path):
            assert layer[target] <= layer[name], f"{name} imports {target} from a higher layer"


def test_no_cycles():
    graph = {name: imports_of(path) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_import_and_help_do_not_import_torch():
    code = (
        "import sys, audioclf\n"
        "from audioclf.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_public_names_exist():
    for name in audioclf.__all__:
        assert getattr(audioclf, name) is not None
    assert callable(audioclf.train)
    assert callable(audioclf.evaluate)
    assert set(dir(audioclf)) == set(audioclf.__all__)
