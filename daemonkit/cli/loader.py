"""Finding the Daemon that `module:attr` names."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from ..app import Daemon
from ..config.in_force import ConfigInForce, bind_config
from ..exceptions import ConfigError, LoadError
from ..text import describe


def load_daemon(target: str) -> Daemon:
    """Load the daemon that `target` names; raises LoadError.

    target: `module`, `module:attr`, `module:Subclass` or `module:factory()`; the module may be
    given as `path/to/file.py`.
    """
    module_name, _, attr = target.partition(":")
    is_file = names_file(module_name)
    names = _attributes(attr) + ([] if is_file else module_name.split("."))
    if not module_name or not all(name.isidentifier() for name in names):
        raise LoadError(f"{target!r} is not MODULE or MODULE:ATTR, as in mymod:app")
    module = _import_file(module_name) if is_file else _import(module_name, Path.cwd())
    return _as_daemon(_find(module, attr), target) if attr else _only_daemon(module)


def names_file(module: str) -> bool:
    """Whether the module is given as a file's path."""
    return module.endswith(".py") or os.sep in module


def _attributes(attr: str) -> list[str]:
    return attr.removesuffix("()").split(".") if attr else []


def _import_file(path: str) -> ModuleType:
    file = Path(path).resolve()
    if not file.is_file():
        raise LoadError(f"there is no file {path}")
    folder, name = _package_root(file)
    if "." in file.stem or not all(part.isidentifier() for part in name.split(".")):
        raise LoadError(
            f"{path} can't be imported: {name!r} is not a valid module name; rename the file"
        )
    module = _import(name, folder)
    if Path(module.__file__ or "").resolve() != file:
        raise LoadError(f"{file} can't be imported: {name!r} is {module.__file__}; rename the file")
    return module


def _import(name: str, folder: Path) -> ModuleType:
    """Import a module, with `folder` on the import path."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        # A missing module that the user's module imports is an error in the latter.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            parent, _, last = name.rpartition(".")
            hint = f"; did you mean {parent}:{last}?" if parent else ""
            raise LoadError(
                f"there is no module {error.name!r} in {Path.cwd()} or on the import path{hint}"
            ) from None
        raise _error_in_module(f"the module {name!r} could not be imported", error) from None
    # A module without an `if __name__` guard may raise SystemExit.
    except (Exception, SystemExit) as error:
        raise _error_in_module(f"the module {name!r} could not be imported", error) from None


def _package_root(file: Path) -> tuple[Path, str]:
    """The folder to import `file` from, and the module's dotted name."""
    parts = [file.stem] if file.stem != "__init__" else []
    folder = file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _error_in_module(what: str, error: BaseException) -> LoadError:
    _learn_secrets(error)
    # The first frames are those of the import machinery and of this module.
    frames = error.__traceback__
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    shown = traceback.format_exception(type(error), error.with_traceback(frames), frames)
    return LoadError(f"{what}: see above", "".join(shown))


def _learn_secrets(error: BaseException) -> None:
    """Load the configuration, which hasn't been needed so far, so that the traceback shows none of
    its secrets: the command line's, and that of each daemon made by the module."""
    configs = [ConfigInForce(None)]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        made = (*frame.f_globals.values(), *frame.f_locals.values())
        configs += [daemon._config for daemon in made if isinstance(daemon, Daemon)]
    for config in configs:
        # It may be what has failed.
        with suppress(Exception):
            config.load()


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


def _find(module: ModuleType, attr: str) -> Any:
    found: Any = module
    path = module.__name__
    for part in _attributes(attr):
        try:
            found, path = getattr(found, part), f"{path}.{part}"
        except AttributeError:
            names = [name for name in dir(found) if not name.startswith("_")]
            nearest = difflib.get_close_matches(part, names, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
            raise LoadError(f"{path} has no attribute {part!r}{hint}") from None
        except Exception as error:
            raise _error_in_module(f"{path}.{part} could not be read", error) from None
    if attr.endswith("()"):
        found = _call(found, attr)
    return found


def _call(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise LoadError(f"{name} can't be called: it is {describe(factory)}")
    call = bind_config(factory, "daemonkit run")
    try:
        return call()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise _error_in_module(f"{name} raised {type(error).__name__}", error) from None


def _as_daemon(found: Any, target: str) -> Daemon:
    if isinstance(found, Daemon):
        return found
    if isinstance(found, type) and issubclass(found, Daemon):
        return _as_daemon(_call(found, target), target)
    hint = f"; to call it as a factory, write '{target}()'" if inspect.isfunction(found) else ""
    raise LoadError(f"{target} is not a Daemon but {describe(found)}{hint}")


def _only_daemon(module: ModuleType) -> Daemon:
    daemons = {n: v for n, v in vars(module).items() if isinstance(v, Daemon)}
    if isinstance(app := daemons.get("app"), Daemon):
        return app
    if len(set(map(id, daemons.values()))) == 1:
        return next(iter(daemons.values()))
    name = module.__name__
    if daemons:
        raise LoadError(
            f"{name} has several daemons; choose one: {name}:{f', {name}:'.join(daemons)}"
        )
    subclasses = [
        n
        for n, v in vars(module).items()
        if isinstance(v, type) and issubclass(v, Daemon) and v is not Daemon
    ]
    hint = f"; for a subclass, write {name}:{subclasses[0]}" if subclasses else ""
    raise LoadError(f"{name} has no Daemon in it{hint}")
