"""A copy of the repository, in `mutants/`, in which every function has its mutants beside it; made by mutmut."""

from pathlib import Path

from mutmut.__main__ import collect_or_load_stats, create_mutants
from mutmut.core import MutmutCallStack
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths
from mutmut.workers.isolation import get_mutant_runner

COPY = Path("mutants")


def main() -> None:
    """Bring the copy up to date, and find out which test calls which function."""
    _forget_callers()
    set_mutant_under_test("mutant_generation")
    COPY.mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(max_children=1)
    collect_or_load_stats(get_mutant_runner(1))


def _forget_callers() -> None:
    """Not to note which function calls which, which is not needed here.

    mutmut keeps the caller in a context variable, also while an object is finalized, which may be in the middle of
    setting that very variable: CPython then crashes, or loses the variable.
    """

    def nothing(cls: type[MutmutCallStack], value: object) -> None:
        pass

    for name in ("set", "reset"):
        setattr(MutmutCallStack, name, classmethod(nothing))


if __name__ == "__main__":
    main()
