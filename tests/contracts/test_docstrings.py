"""Every public module, class, function and method says what it is."""

import ast

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Their documentation is that of the definition they belong to.
EXEMPT_DECORATORS = {"overload", "override", "setter", "deleter"}


def decorator_names(node: ast.AST) -> set[str]:
    """Last part of each decorator's name."""
    names = set()
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        names.add(target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", ""))
    return names


def undocumented(node: ast.AST, prefix: str) -> list[str]:
    """Names of the public definitions in a module or class body without a docstring."""
    found = []
    for child in node.body:
        if not isinstance(child, DEFINITIONS) or child.name.startswith("_"):
            continue
        name = f"{prefix}.{child.name}"
        if not decorator_names(child) & EXEMPT_DECORATORS and not ast.get_docstring(child):
            found.append(name)
        if isinstance(child, ast.ClassDef):
            found += undocumented(child, name)
    return found


def test_every_module_has_a_docstring(sources):
    assert [str(source.path) for source in sources if not ast.get_docstring(source.tree)] == []


def test_every_public_definition_has_a_docstring(sources):
    found = [name for source in sources for name in undocumented(source.tree, source.module)]
    assert found == []


def test_the_check_sees_a_missing_docstring():
    code = 'class A:\n    "A."\n    def f(self): ...\n    def _g(self): ...\ndef h(): ...\n'
    assert undocumented(ast.parse(code), "m") == ["m.A.f", "m.h"]
