"""How the package is laid out: what may import what, how long things are, and where the command line is known."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import zett

PACKAGE = Path(__file__).parents[1] / "zett"
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
LONGEST_MODULE, LONGEST_FUNCTION, MOST_INNER_IMPORTS = 400, 60, 44


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(node: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """(module of zett, statement) of each import, those inside functions too; what only type checkers import is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, child) for alias in child.names if alias.name in MODULES)
        elif isinstance(child, ast.ImportFrom) and child.module in MODULES:
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield (full if full in MODULES else child.module), child
        yield from imports(child)


IMPORTS = {module: {name for name, _ in imports(tree_of(module))} for module in MODULES}


def inner_lines(tree: ast.Module) -> set[int]:
    """Lines of the imports of zett that stand inside a function."""
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    return {statement.lineno for function in functions for _, statement in imports(function)}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Some modules that import each other in a circle, or []."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module in done:
            return []
        found = next(filter(None, (visit(other, [*way, module]) for other in sorted(edges[module]))), [])
        done.add(module)
        return found

    return next(filter(None, (visit(module, []) for module in sorted(edges))), [])


def test_all_imports_are_absolute():
    """Which the other tests rely on."""
    for module in MODULES:
        assert not [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.ImportFrom) and node.level], module


def test_no_module_imports_itself_through_others():
    assert circle(IMPORTS) == []


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_few_imports_are_inside_functions():
    """Each import statement counts once; the commands' own are what keeps `--help` light."""
    inner = [f"{module}:{line}" for module in MODULES for line in inner_lines(tree_of(module))]
    assert len(inner) <= MOST_INNER_IMPORTS, inner


def test_files_are_the_ground():
    """zett/files imports nothing of zett but the errors and its own modules; and `zett` itself, for the version."""
    for module, found in IMPORTS.items():
        if module.split(".")[:2] == ["zett", "files"]:
            allowed = {"zett", "zett.errors", *(name for name in MODULES if name.startswith("zett.files"))}
            assert found <= allowed, module
    assert not IMPORTS["zett"] and not IMPORTS["zett.errors"]


def test_only_the_command_line_imports_commands():
    users = {module for module, found in IMPORTS.items() for other in found if other.startswith("zett.commands")}
    assert {module for module in users if not module.startswith("zett.commands")} == {"zett.cli"}


def test_only_commands_add_arguments():
    """But for the two that all commands have."""
    added = {}
    for module in MODULES:
        calls = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
        named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
        if named:
            added[module] = {argument.value for call in named for argument in call.args if isinstance(argument, ast.Constant)}
    assert added.pop("zett.cli") == {"--debug", "--version"}
    assert added and all(module.startswith("zett.commands.") for module in added), sorted(added)


def test_modules_are_short():
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_functions_are_short():
    """But in zett/vocab/compiled: what numba compiles may not call Python functions, and is long for that."""
    lengths = {
        f"{module}.{node.name}": node.end_lineno - node.lineno + 1
        for module in MODULES
        if not module.startswith("zett.vocab.compiled")
        for node in ast.walk(tree_of(module))
        if isinstance(node, FUNCTION)
    }
    assert lengths and {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_public_names_import():
    assert len(zett.__all__) == len(set(zett.__all__)) > 0
    for name in zett.__all__:
        assert getattr(zett, name) is not None


def test_the_command_line_loads_no_jax():
    """`zett --help` answers at once."""
    names = [module for module in MODULES if module == "zett.cli" or module.startswith("zett.commands")]
    code = f"""
import argparse, importlib, sys
for name in {names!r}:
    module = importlib.import_module(name)
    if hasattr(module, "arguments"):
        module.arguments(argparse.ArgumentParser())
print(*sorted({{"jax", "numba", "tokenizers", "transformers", "matplotlib", "torch"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert run.stdout.split() == []
