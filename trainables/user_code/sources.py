"""Sources of user code: a file, and the imported modules in the same folder.

The sources are found by reading the import statements, without running anything. Statements inside functions count too.
Computed names, as in `importlib.import_module(name)`, are not found.
"""

import ast
import difflib
import hashlib
import json
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Final

from trainables.display.nearest import did_you_mean
from trainables.user_code.errors import UserCodeError
from trainables.user_code.reference import CanonicalName, Reference

_PACKAGE_FILE: Final = "__init__.py"
_OWN_PACKAGES: Final = Path(__file__).parents[1]  # folder of `trainables`
_OWN_NAMES: Final = ("trainables", "study", "search_spaces", "analysis", "pesfkd")
_MOST_FILES: Final = 200
_MOST_CHARACTERS: Final = 1_000_000
_LIBRARY_FOLDERS: Final = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Sources:
    """Sources of one user module and the imported modules in the same folder.

    Args:
        main: module file, relative to the folder: `net.py`, or `package/module.py`.
        files: file texts, by relative name with slashes.
        shown: original folder of the user's files, shown in tracebacks. The folder is not part of the digest.
    """

    main: str
    files: Mapping[str, str]
    shown: str = field(default="", compare=False)

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits for the relative names and contents."""
        content = json.dumps([self.main, sorted(self.files.items())])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """File name, or the dotted name of a package's module."""
        path = PurePosixPath(self.main)
        if len(path.parts) == 1:
            return self.main
        return ".".join(path.parent.parts if path.name == _PACKAGE_FILE else path.with_suffix("").parts)

    def canonical_name(self, name: str) -> str:
        """Return the canonical name of an object defined by the module."""
        return str(CanonicalName(self.title, name, self.digest))

    def shown_as(self, file: str) -> str:
        """Return a file's name in tracebacks."""
        return f"{self.shown}/{file}" if self.shown else f"{self.title}@{self.digest}/{file}"

    @cached_property
    def shown_files(self) -> frozenset[str]:
        """All file names in tracebacks."""
        return frozenset(map(self.shown_as, self.files))

    @property
    def libraries(self) -> list[str]:
        """Names of modules imported from elsewhere, except the standard library's, sorted."""
        own = {PurePosixPath(file).parts[0].removesuffix(".py") for file in self.files}
        named: set[str] = set()
        for text in self.files.values():
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Import):
                    named |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    named.add(node.module.partition(".")[0])
        return sorted(named - own - sys.stdlib_module_names)

    def to_json(self) -> dict[str, Any]:
        """Return the sources as JSON values."""
        return {"main": self.main, "files": dict(self.files), "shown": self.shown}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Sources":
        """Invert `to_json`."""
        return cls(content["main"], dict(content["files"]), content.get("shown", ""))


def find_sources(reference: Reference) -> Sources:
    """Read the sources named by a reference.

    Raises:
        UserCodeError: the file or module does not exist, is not readable or not Python, is part of this package, has
            too many modules, or imports a module of the working directory from outside the file's folder; or the digest
            of the sources differs from the reference's digest.
    """
    root, main = _place_of_file(reference) if reference.is_file else _place_of_module(reference)
    if _is_own(root / main):
        raise UserCodeError(f"{reference.place} is part of pesfkd itself, not code of your own")
    found = Sources(main, _closure(root, main), str(root))
    _refuse_modules_outside(found, root, reference.name)
    if reference.digest and found.digest != reference.digest:
        raise UserCodeError(
            f"{reference.place} has the digest {found.digest}, not {reference.digest}: the file, or a module that it "
            "imports, was changed. Restore it, or leave out the digest to use the file as it is"
        )
    return found


def _refuse_modules_outside(sources: Sources, root: Path, name: str) -> None:
    """Check that the sources import nothing from the working directory, except from their own folder.

    Python finds these modules here, but not on the nodes with the trials.
    """
    here = Path.cwd()
    for library in sources.libraries:
        try:
            spec = find_spec(library)
        except (ImportError, ValueError):
            continue
        places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
        for place in (Path(each) for each in places if each):
            inside = place.is_relative_to(here) and {*place.parts}.isdisjoint(_LIBRARY_FOLDERS)
            if not inside or _is_own(place):
                continue
            file = root / sources.main
            module = ".".join(file.relative_to(here).with_suffix("").parts) if file.is_relative_to(here) else ""
            advice = f"name it from there, as {module}:{name}" if module else "put both into one folder"
            raise UserCodeError(
                f"{sources.main} imports {library} from {here}, and a study keeps only the modules of the file's own "
                f"folder, {root}: {advice}"
            )


def _place_of_file(reference: Reference) -> tuple[Path, str]:
    path = Path(reference.place).expanduser().absolute()
    if path.is_dir():
        raise UserCodeError(f"{reference.place} is a folder: give a file, such as net.py:{reference.name}")
    if not path.is_file():
        if not path.parent.is_dir():
            raise UserCodeError(f"there is no file {reference.place}: its folder does not exist")
        others = [each.name for each in path.parent.glob("*.py")]
        hint = did_you_mean(path.name, others) or f"; {path.parent} has no file of a similar name"
        raise UserCodeError(f"there is no file {reference.place}{hint}")
    return path.parent, path.name


def _place_of_module(reference: Reference) -> tuple[Path, str]:
    """Locate a module's file without importing the module or the packages above."""
    parts = reference.place.split(".")
    spec = _spec_of(parts)
    if spec is None:
        file = f"{reference.place.replace('.', '/')}.py"
        near = difflib.get_close_matches(file, [each.name for each in Path().glob("*.py")], n=1, cutoff=0.5)
        found = file if Path(file).is_file() else next(iter(near), None)
        hint = f"; did you mean {found}:{reference.name}?" if found else ""
        raise UserCodeError(
            f"there is no module {reference.place}{hint or ': install its package, or name a file, as in net.py:make'}"
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise UserCodeError(
            f"module {reference.place} has no Python source: name a file that imports it, as in net.py:make"
        )
    path = Path(spec.origin).absolute()
    depth = len(parts) + (path.name == _PACKAGE_FILE)
    root = path.parents[depth - 1]
    return root, path.relative_to(root).as_posix()


def _spec_of(parts: list[str]) -> ModuleSpec | None:
    try:
        spec = find_spec(parts[0])
    except (ImportError, ValueError):
        return None
    for number in range(2, len(parts) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(parts[:number]), list(spec.submodule_search_locations))
    return spec


def _closure(root: Path, main: str) -> dict[str, str]:
    """Return the texts of a file and all directly or indirectly imported files below `root`."""
    folder = _Folder(root, main)
    # Python imports the packages around a module first.
    waiting, texts = [*folder.files_of(PurePosixPath(main).parent.parts), main], dict[str, str]()
    while waiting:
        file = waiting.pop()
        if file in texts:
            continue
        texts[file] = _read(root / file)
        waiting += _imported(folder, file, texts[file])
        if len(texts) > _MOST_FILES or sum(map(len, texts.values())) > _MOST_CHARACTERS:
            raise UserCodeError(
                f"{main} imports more than {_MOST_FILES} modules, or {_MOST_CHARACTERS:,} characters, of its own "
                f"folder {root}, and all of them would be kept with the study: install what it needs as a package, and "
                "name a small file elsewhere that imports it"
            )
    return dict(sorted(texts.items()))


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserCodeError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserCodeError(f"{path} is not text in UTF-8: save it as such") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")  # the same file from a system with other line ends


class _Folder:
    """A module's folder, with the imported files in it.

    Installed packages lie next to each other, so only the module's own package counts there.

    Args:
        root: the folder.
        main: module file, relative to the folder.
    """

    def __init__(self, root: Path, main: str) -> None:
        self.root = root
        libraries = {Path(path) for path in sysconfig.get_paths().values()}
        self._only = None
        if root in libraries or not {*root.parts}.isdisjoint(_LIBRARY_FOLDERS):
            self._only = PurePosixPath(main).parts[0].removesuffix(".py")

    def files_of(self, parts: tuple[str, ...]) -> Iterator[str]:
        """Yield the files for a dotted name and the enclosing packages, if they are in the folder."""
        if self._only is not None and parts[:1] != (self._only,):
            return
        for number in range(1, len(parts) + 1):
            path = PurePosixPath(*parts[:number])
            for file in (path / _PACKAGE_FILE, path.with_name(f"{path.name}.py")):
                if (self.root / file).is_file() and not _is_own(self.root / file):
                    yield file.as_posix()
                    break


def _imported(folder: _Folder, file: str, text: str) -> Iterator[str]:
    """Yield the files in the folder named by a file's import statements."""
    path = folder.root / file
    try:
        tree = ast.parse(text, str(path))
    except (SyntaxError, ValueError) as error:
        described = "".join(traceback.format_exception_only(error)).rstrip()
        raise UserCodeError(f"{path} is not valid Python:\n{described}") from None
    except RecursionError:
        raise UserCodeError(f"{path} is nested too deeply to be read") from None
    package = PurePosixPath(file).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from folder.files_of(tuple(alias.name.split(".")))
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield from folder.files_of((*module, alias.name))


def _is_own(path: Path) -> bool:
    """Return whether a file belongs to this package, as when the user's file lies next to it."""
    folder = _OWN_PACKAGES.parent
    return path.is_relative_to(folder) and path.relative_to(folder).parts[0] in _OWN_NAMES
