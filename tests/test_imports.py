"""Which room of the house may know which, by the imports in the source."""

import ast

import pytest

from tests.conftest import ROOT

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "drift").rglob("*.py"))
}
# The rooms, and the other ones that each may import, besides `drift` itself. Science is whatever
# lies directly in drift/. The scripts stand above and may import all.
ROOMS = {
    "science": set(),
    "drift.indexes": {"science"},
    "drift.published": {"science"},
    "drift.images": {"science"},
    "drift.report": set(),
    "drift.pipeline": set(),
    "drift.pipeline.tasks": {
        "science",
        "drift.indexes",
        "drift.published",
        "drift.images",
        "drift.pipeline",
    },
}
OF_DRIFT_ITSELF = {"InputError", "add_filename"}


def statements(nodes):
    """Every import in some nodes, those inside functions too, those for a type checker not."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse)
        else:
            yield from statements(ast.iter_child_nodes(node))


def imported(source, package, modules):
    """Modules that a source imports, each with the names that are taken from it.

    Parameters
    ----------
    source : str
    package : str
        What a leading dot stands for.
    modules : container of str
        Names that are modules: of ``from a import b`` it is a.b if that is one, and b of a if not.
    """
    names = {}
    for statement in statements([ast.parse(source)]):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                names.setdefault(alias.name, set())
            continue
        above = package.split(".")[: len(package.split(".")) - statement.level + 1]
        base = ".".join([*(above if statement.level else ()), *filter(None, [statement.module])])
        for alias in statement.names:
            if f"{base}.{alias.name}" in modules:
                names.setdefault(f"{base}.{alias.name}", set())
            else:
                names.setdefault(base, set()).add(alias.name)
    return names


def imports(module):
    """What a module of ours imports."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return imported(path.read_text(), package, MODULES)


def room(module):
    """The innermost room in which a module of ours is."""
    inside = [name for name in ROOMS if f"{module}.".startswith(f"{name}.")]
    return max(inside, key=len, default="science")


def circle(graph):
    """A way from a node back to itself, or None."""
    finished = set()

    def walk(node, way):
        if node in way:
            return [*way[way.index(node) :], node]
        if node not in finished:
            for other in sorted(graph.get(node, ())):
                if found := walk(other, [*way, node]):
                    return found
            finished.add(node)
        return None

    return next(filter(None, (walk(node, []) for node in sorted(graph))), None)


def modules_of(*rooms):
    """Every module of some rooms; of all without them."""
    chosen = [name for name in MODULES if name != "drift" and room(name) in (rooms or ROOMS)]
    return pytest.mark.parametrize("module", chosen)


def test_every_room_is_looked_at():
    assert {room(module) for module in set(MODULES) - {"drift"}} == set(ROOMS)


@modules_of()
def test_no_import_runs_upward(module):
    ours = {name for name in imports(module) if name.split(".")[0] in ("drift", "tests")}
    assert ours <= set(MODULES)

    assert {room(name) for name in ours - {"drift"}} <= ROOMS[room(module)] | {room(module)}


def test_drift_itself_imports_none_of_its_modules():
    assert not [name for name in imports("drift") if name.split(".")[0] == "drift"]


def test_no_imports_run_in_a_circle():
    assert circle({module: set(imports(module)) & set(MODULES) for module in MODULES}) is None


@modules_of()
def test_no_import_is_hidden_in_a_text(module):
    source = MODULES[module].read_text()

    assert not [word for word in ("import_module", "__import__", "runpy") if word in source]


@modules_of("drift.pipeline")
def test_pipeline_knows_no_science_but_in_its_tasks(module):
    ours = [name for name in imports(module) if name.startswith("drift.")]

    assert {room(name) for name in ours} <= {"drift.pipeline"}


@modules_of("drift.report")
def test_report_knows_tables_and_errors_only(module):
    ours = {name: taken for name, taken in imports(module).items() if name.startswith("drift")}

    assert ours.pop("drift", set()) <= OF_DRIFT_ITSELF
    assert {room(name) for name in ours} <= {"drift.report"}


@modules_of("science", "drift.indexes", "drift.published", "drift.images")
def test_science_knows_neither_pipeline_nor_report(module):
    ours = [name for name in imports(module) if name.startswith("drift.")]

    assert not [name for name in ours if room(name).startswith(("drift.pipeline", "drift.report"))]


# Of the reading itself: whether it can find what it looks for.


@pytest.mark.parametrize(
    "source, expected",
    [
        ("import drift.pipeline.stage as s, os", {"drift.pipeline.stage": set(), "os": set()}),
        ("from drift import InputError", {"drift": {"InputError"}}),
        ("from drift import exact, InputError", {"drift.exact": set(), "drift": {"InputError"}}),
        ("from drift.exact import check_k as c", {"drift.exact": {"check_k"}}),
        ("from .exact import check_k", {"drift.exact": {"check_k"}}),
        ("from . import exact", {"drift.exact": set()}),
        ("def f():\n    if x:\n        import drift.exact", {"drift.exact": set()}),
        (
            "class A:\n    async def f(self):\n        from drift import exact",
            {"drift.exact": set()},
        ),
        ("try:\n    pass\nexcept E:\n    import drift.exact", {"drift.exact": set()}),
        ("if TYPE_CHECKING:\n    import drift.exact", {}),
        ("if typing.TYPE_CHECKING:\n    import drift.exact\nelse:\n    import os", {"os": set()}),
    ],
)
def test_imports_are_found_wherever_they_are(source, expected):
    assert imported(source, "drift", {"drift", "drift.exact", "drift.pipeline.stage"}) == expected


def test_imports_of_the_package_above_are_found():
    assert imported("from ..exact import k", "drift.images", {}) == {"drift.exact": {"k"}}


@pytest.mark.parametrize(
    "graph, expected",
    [
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, None),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c", "b"]),
        ({"a": {"a"}}, ["a", "a"]),
    ],
)
def test_circles_are_found(graph, expected):
    assert circle(graph) == expected


@pytest.mark.parametrize(
    "module, expected",
    [
        ("drift.exact", "science"),
        ("drift.reporting", "science"),
        ("drift.report", "drift.report"),
        ("drift.pipeline.stage", "drift.pipeline"),
        ("drift.pipeline.tasks.embed", "drift.pipeline.tasks"),
    ],
)
def test_rooms_are_told_apart(module, expected):
    assert room(module) == expected
