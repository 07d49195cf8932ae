"""Load user code from sources, under private names.

Code is loaded from copies of the sources, held by a study or sent by another process. The user's files are not read
again, because they may have changed. Each digest has a separate package in `sys.modules`. Modules with equal names in
two folders therefore do not clash, and user modules never hide a library. A module imports neighbours by their usual
names, because the module's import statements call `_import_neighbours`. Nothing is pickled.

`canonical_name("net.py:make")` reads the sources without running them, and returns a name for configs and plans, such
as `net.py:make@0123456789abcdef`. `load_callable(name)` runs the sources in any process with a copy. A process gets a
copy by reading the files, by opening the study (`trainables.user_code.storage`), or from another process
(`remember_json`). A study sends the sources of all names in the plan to all tasks and trials (`study.plan.user_code`).
`describe(error)` formats an error with the user's lines alone.
"""

import builtins
import importlib
import linecache
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import PurePosixPath
from types import CodeType, ModuleType
from typing import Any, Final

from trainables.display.nearest import did_you_mean
from trainables.user_code.errors import UserCodeError, first_user_frame, user_traceback
from trainables.user_code.reference import canonical, parse_reference
from trainables.user_code.sources import Sources, find_sources

_PREFIX: Final = "pesfkd_user_code_"
_PACKAGE_FILE: Final = "__init__.py"
_MOST_NAMED: Final = 8

_known: dict[str, Sources] = {}
_executed: list[str] = []  # files whose modules are being executed
_unusable: dict[str, str] = {}


def remember(sources: Iterable[Sources]) -> None:
    """Make sources known to this process, by their digests."""
    for each in sources:
        _unusable.pop(each.digest, None)
        _known.setdefault(each.digest, each)


def remember_unusable(digest: str, reason: str) -> None:
    """Note why a digest's sources cannot be used; reported when they are needed."""
    _unusable.setdefault(digest, reason)


def remember_json(contents: Iterable[Mapping[str, Any]]) -> None:
    """Register sources sent by another process as `Sources.to_json`."""
    remember(map(Sources.from_json, contents))


def canonical_name(text: str) -> str:
    """Return a reference's canonical name, after reading the sources and registering them with this process.

    Raises:
        UserCodeError: the code cannot be found or read.
    """
    reference = parse_reference(text)
    sources = find_sources(reference)
    remember([sources])
    return sources.canonical_name(reference.name)


def sources_of(name: str) -> Sources:
    """Return a canonical name's sources.

    Raises:
        UserCodeError: this process does not know them.
    """
    digest = canonical(name).digest
    if digest not in _known:
        raise UserCodeError(
            _unusable.get(digest)
            or f"the sources of {name} are not known here: restore the folder code of the study from a copy, or name "
            "the same file again"
        )
    return _known[digest]


def load(name: str) -> Any:
    """Return the object with a canonical name. The module is executed once per process.

    Raises:
        UserCodeError: the sources are not known, the module raises an error (the message has the user's traceback), or
            the module does not define the name.
    """
    sources, wanted = sources_of(name), canonical(name).name
    module = _module(sources)
    try:
        return vars(module)[wanted]
    except KeyError:
        pass
    defined = [each for each in vars(module) if not each.startswith("_")]
    own = [each for each in defined if getattr(vars(module)[each], "__module__", None) == module.__name__] or defined
    listed = ", ".join(own[:_MOST_NAMED]) + (", ..." if len(own) > _MOST_NAMED else "")
    raise UserCodeError(
        f"{sources.title} defines no {wanted}{did_you_mean(wanted, defined) or '.'} It defines: {listed or 'nothing'}"
    )


def load_callable(name: str) -> Any:
    """Return the callable with a canonical name.

    Raises:
        UserCodeError: see `load`; or the object cannot be called.
    """
    found = load(name)
    if not callable(found):
        own = canonical(name)
        raise UserCodeError(
            f"{own.title}:{own.name} is a {type(found).__name__}, which cannot be called: name a function or a class"
        )
    return found


@contextmanager
def executed_again(name: str) -> Iterator[None]:
    """Execute the modules of a canonical name again if loaded in the block; restore the earlier modules."""
    prefix = f"{_PREFIX}{sources_of(name).digest}."

    def taken_out() -> dict[str, ModuleType]:
        return {each: sys.modules.pop(each) for each in list(sys.modules) if f"{each}.".startswith(prefix)}

    before = taken_out()
    try:
        yield
    finally:
        taken_out()
        sys.modules.update(before)


def describe(error: BaseException) -> str:
    """Format an error with the user's part of the traceback, starting at the first frame in known user code."""
    return user_traceback(error, _all_files())


@contextmanager
def errors_explained() -> Iterator[None]:
    """Replace an error from user code by an error with the user's part of the traceback.

    The message can be sent to a process without the user's code. Tracebacks cannot.

    Raises:
        UserCodeError: user code raised an error, directly or in a called function.
    """
    try:
        yield
    except UserCodeError:
        raise
    except Exception as error:
        if line_of(error) is None:
            raise
        raise UserCodeError(f"your code raised an error:\n{describe(error)}") from None


def line_of(error: BaseException) -> tuple[str, str, int] | None:
    """Return function, file and line of the last user code frame in an error's traceback, or None."""
    files, found = _all_files(), None
    trace = first_user_frame(error.__traceback__, files)
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename in files:
            found = code.co_name, code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return found


def is_executing() -> bool:
    """Return whether a user module is being executed. The caller may then be this module."""
    return bool(_executed)


def _all_files() -> set[str]:
    return {file for sources in _known.values() for file in sources.shown_files}


def _module(sources: Sources) -> ModuleType:
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    path = PurePosixPath(sources.main)
    parts = path.parent.parts if path.name == _PACKAGE_FILE else path.with_suffix("").parts
    name = ".".join([_PREFIX + sources.digest, *parts])
    try:
        return importlib.import_module(name)  # the last part need not be a Python name, as in `my-net.py`
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script may call sys.exit when it is imported
        for each in [each for each in sys.modules if f"{each}.".startswith(f"{_PREFIX}{sources.digest}.")]:
            del sys.modules[each]
        raise UserCodeError(f"{sources.title} cannot be imported:\n{describe(error)}") from None


class _Loader(InspectLoader):
    """Loader of one module from sources.

    Args:
        sources: the sources.
        file: module file; None for a folder without `__init__.py`.
    """

    def __init__(self, sources: Sources, file: str | None) -> None:
        self._sources, self._file = sources, file

    def get_source(self, fullname: str) -> str:  # noqa: ARG002
        """Return the text, which tracebacks and `inspect` show."""
        return "" if self._file is None else self._sources.files[self._file]

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002
        """Return whether the module is a package."""
        return self._file is None or PurePosixPath(self._file).name == _PACKAGE_FILE

    def get_code(self, fullname: str) -> CodeType:
        """Compile the text."""
        shown, text = self._sources.shown_as(self._file or _PACKAGE_FILE), self.get_source(fullname)
        # Tracebacks show this text, also if the file has changed or is not on this machine. Entries without a time of
        # change are kept.
        linecache.cache[shown] = (len(text), None, text.splitlines(keepends=True), shown)
        return compile(text, shown, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, with an `__import__` that finds neighbouring modules."""
        package = _PREFIX + self._sources.digest
        tops = frozenset(PurePosixPath(file).parts[0].removesuffix(".py") for file in self._sources.files)
        own_import = partial(_import_neighbours, package, tops)
        # This path does not exist. Files next to the module are not kept with a study, so reading one by `__file__`
        # fails at once and not only in the study's trials.
        module.__file__ = f"{self._sources.title}@{self._sources.digest}/{self._file or ''}"
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": own_import}
        _executed.append(self._file or "")
        try:
            with redirect_stdout(sys.stderr):  # stdout is for results
                exec(self.get_code(module.__name__), module.__dict__)  # noqa: S102
        finally:
            _executed.pop()


class _Finder(MetaPathFinder):
    """Finder for the private modules from all known sources."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return a private module's spec, or None for other modules."""
        if not fullname.startswith(_PREFIX):
            return None
        digest, *parts = fullname.removeprefix(_PREFIX).split(".")
        sources = _known.get(digest)
        if sources is None:
            return None
        path_of = PurePosixPath(*parts)
        for file in (path_of / _PACKAGE_FILE, path_of.with_name(f"{path_of.name}.py") if parts else None):
            if file is not None and file.as_posix() in sources.files:
                loader = _Loader(sources, file.as_posix())
                return ModuleSpec(fullname, loader, is_package=loader.is_package(fullname))
        if not parts or any(file.startswith(f"{path_of.as_posix()}/") for file in sources.files):
            return ModuleSpec(fullname, _Loader(sources, None), is_package=True)
        return None


_FINDER: Final = _Finder()


def _import_neighbours(
    package: str,
    tops: frozenset[str],
    name: str,
    globals: Mapping[str, object] | None = None,  # noqa: A002 - the names of builtins.__import__
    locals: Mapping[str, object] | None = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Import as `__import__` does, with the modules in the user's folder under their private names.

    Args:
        package: the sources' private package.
        tops: module and package names in the folder.
        name: see `builtins.__import__`, as all further arguments.
        globals: the importing module's globals.
        locals: unused.
        fromlist: names to import from the module.
        level: number of dots in a relative import.
    """
    if level or name.partition(".")[0] not in tops:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    private = f"{package}.{name}"
    if fromlist:
        return builtins.__import__(private, globals, locals, fromlist, 0)
    importlib.import_module(private)
    return sys.modules[f"{package}.{name.partition('.')[0]}"]
